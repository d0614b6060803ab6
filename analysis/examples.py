"""Examples of trained models: from the arrays stored with a cell to axes, a function for each kind.

Images are drawn dark on light, as ink.
"""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.files import written_whole
from analysis.stored import ResultsError
from analysis.style import own_style

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = Mapping[str, Array]
Examples = dict[str, Arrays]

EXAMPLES = "task=*/estimator=*/[!.]*.npz"
"""Where examples are, in the folder `examples` of a results folder."""

CAPTION = "Of the first seed of each estimator, with the parameters that did best on validation."
"""Of what is shown."""

FEW = 20
"""Cells whose examples are drawn here: processes for more of them would take as long to start."""

_TILE = 48
"""Least width of an image among bit-vectors, in points of the picture."""

_ARC = 1.0
"""Height of the space for arcs over a sentence."""

_OFF, _ON = 30, 215
"""Grey of a bit, 255 is ink."""


def read_examples(path: Path) -> Examples:
    """The examples of a cell by name; results/README.md says what is in each.

    Raises:
        ResultsError: the file is damaged.
    """
    found: dict[str, dict[str, Array]] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for entry in file.files:
                name, _, part = entry.rpartition("/")
                found.setdefault(name, {})[part] = file[entry]
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise ResultsError(f"{path} is damaged: delete it to do without these examples") from error
    return {name: arrays for name, arrays in found.items() if str(arrays.get("kind")) in DRAW}


def draw_images(arrays: Arrays, axes: Axes) -> None:
    """Rows of images with a label each."""
    _show(_mosaic(arrays["images"]), axes)
    _label_rows([str(label) for label in arrays["labels"]], axes)


def draw_pairs(arrays: Arrays, axes: Axes) -> None:
    """Images, and what became of each below it."""
    _show(_mosaic(np.stack([arrays["original"], arrays["reconstruction"]])), axes)
    _label_rows(["image", "model"], axes)


def draw_histogram(arrays: Arrays, axes: Axes) -> None:
    """Shares, the greatest first."""
    share = np.sort(arrays["share"])[::-1]
    axes.bar(np.arange(1, len(share) + 1), share, width=1.0, color="0.35", edgecolor="white")
    axes.set(xlabel="rank", xlim=(0.5, len(share) + 0.5))


def draw_bits(arrays: Arrays, axes: Axes) -> None:
    """Images, each followed by its likeliest bit-vectors, what they are decoded to, and q(z | x).

    A strip below each decoded image has the bits; dark ones are on. The label is the number of
    bit-vectors with positive probability.
    """
    bits, probability = arrays["bits"], arrays["probability"]
    height, width = arrays["original"].shape[1:]
    factor = -(-max(_TILE, bits.shape[2]) // width)
    strip, space = max(4, height * factor // 6), max(10, height * factor // 4)
    tile = (height * factor + strip + space, width * factor)
    canvas = np.zeros((len(bits), bits.shape[1] + 1, *tile), np.uint8)
    canvas[:, 0, : height * factor] = _enlarged(arrays["original"], factor)
    canvas[:, 1:, : height * factor] = _enlarged(arrays["reconstruction"], factor)
    bit_of_column = np.arange(tile[1]) * bits.shape[2] // tile[1]
    shades = np.where(bits[:, :, None, bit_of_column] > 0, _ON, _OFF)
    if 4 * bits.shape[2] <= tile[1]:  # there is room for gaps between the bits
        shades[..., np.diff(bit_of_column, append=-1) != 0] = 0
    canvas[:, 1:, height * factor : height * factor + strip] = shades
    canvas[:, 1:][probability <= 0] = 0
    _show(_mosaic(canvas, gap=4), axes)
    for (row, place), share in np.ndenumerate(probability):
        if share > 0:
            x = (place + 1) * (tile[1] + 4) + tile[1] / 2
            y = (row + 1) * (tile[0] + 4) - 4 - space / 2
            axes.text(x, y, _share(share), ha="center", va="center", fontsize=6)
    _label_rows([f"{size:.3g}" for size in arrays["support"]], axes)


def draw_trees(arrays: Arrays, axes: Axes) -> None:
    """A sentence to a row, with its likeliest trees side by side as arcs over it, and q(z | x).

    An arc rises from a word and comes down on its head; a root has a stroke above it. Those that
    are not in the true tree are dashed.
    """
    words, heads, truth = arrays["words"], arrays["heads"], arrays["truth"]
    longest = words.shape[1]
    for (row, place), share in np.ndenumerate(arrays["probability"]):
        if share > 0:
            left, base = place * (longest + 2), -row * (_ARC + 0.6)
            for number, word in enumerate(words[row][words[row] != ""]):
                x, head = left + number, heads[row, place, number]
                style = "-" if truth[row, number] in (head, -1) else (0, (2, 1))
                axes.text(x, base, word, ha="center", va="top", fontsize=4)
                across, up = _arc(number, int(head), longest)
                axes.plot(left + across, base + up, color="0.2", lw=0.5, ls=style)
            axes.text(left, base + _ARC, _share(share), ha="left", va="top", fontsize=5)
    columns = arrays["probability"].shape[1]
    axes.set(
        xlim=(-1, columns * (longest + 2) - 1), ylim=(-(len(words) - 0.5) * (_ARC + 0.6), _ARC)
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _arc(word: int, head: int, longest: int) -> tuple[Array, Array]:
    """The line from a word to its head, half an ellipse that is higher the farther they are apart;
    of a root, a stroke."""
    if head == word:
        return np.array([word, word]), np.array([0.05, 0.9 * _ARC])
    turn = np.linspace(0, np.pi, 24)
    across = (word + head) / 2 + (word - head) / 2 * np.cos(turn)
    return across, 0.05 + (0.15 + 0.75 * abs(word - head) / longest) * _ARC * np.sin(turn)


DRAW: dict[str, Callable[[Arrays, Axes], None]] = {
    "images": draw_images,
    "pairs": draw_pairs,
    "histogram": draw_histogram,
    "bits": draw_bits,
    "trees": draw_trees,
}
"""By the kind that the arrays say they are."""


_WIDTH = {"images": 2.5, "pairs": 2.9, "histogram": 2.5, "bits": 4.2, "trees": 7.0}
"""Inches, of a figure in a row of several."""

_HEIGHT = 2.5
_MARGINS = {"left": 0.55, "right": 0.05, "top": 0.35, "bottom": 0.4}
"""Inches, of each."""


def examples_figure(examples: Examples) -> Figure:
    """All examples of a cell in a row."""
    widths = [_WIDTH[str(arrays["kind"])] for arrays in examples.values()]
    with own_style():
        figure = Figure(figsize=(sum(widths), _HEIGHT))  # a layout engine takes as long again
        for arrays, width, end in zip(
            examples.values(), widths, itertools.accumulate(widths), strict=True
        ):
            inner = width - _MARGINS["left"] - _MARGINS["right"]
            box = (
                (end - width + _MARGINS["left"]) / sum(widths),
                _MARGINS["bottom"] / _HEIGHT,
                inner / sum(widths),
                (_HEIGHT - _MARGINS["top"] - _MARGINS["bottom"]) / _HEIGHT,
            )
            axes = figure.add_axes(box, anchor="NW")
            DRAW[str(arrays["kind"])](arrays, axes)
            axes.set_title(str(arrays["title"]), fontsize=7, loc="left")
    return figure


def save_examples(table: pd.DataFrame, folder: Path) -> dict[tuple[str, str], Path]:
    """Draw the examples of the first seed of each estimator on each task into a results folder.

    Returns:
        The PNG for each task and estimator that has examples. Those of an earlier time are removed.
    Raises:
        ResultsError: a file is damaged.
    """
    figures = folder / "figures" / "examples"
    for old in figures.glob("*.png"):
        old.unlink()
    files = {path.stem: path for path in (folder / "examples").glob(EXAMPLES)}
    cells = table[(table["status"] == "ok") & table["key"].isin(files)].sort_values(["seed", "key"])
    keys = cells.drop_duplicates(["task", "estimator"]).set_index(["task", "estimator"])["key"]
    paths = {
        (str(task), str(estimator)): figures / f"{quote(f'{task}-{estimator}', safe='')}.png"
        for task, estimator in sorted(keys.index)
    }
    drawn = Parallel(n_jobs=1 if len(keys) <= FEW else -1)(
        delayed(_save_example)(files[str(keys[what])], path) for what, path in paths.items()
    )
    return {what: path for (what, path), there in zip(paths.items(), drawn, strict=True) if there}


def _save_example(file: Path, path: Path) -> bool:
    """Draw what a file has: whether it has any."""
    examples = read_examples(file)
    if examples:
        with own_style(), written_whole(path) as picture:
            examples_figure(examples).savefig(picture, dpi=120)
    return bool(examples)


def examples_section(saved: Mapping[tuple[str, str], Path], folder: Path) -> list[str]:
    """The examples as parts of a Markdown file in the results folder."""
    parts = ["## Examples", CAPTION] if saved else []
    for (task, estimator), path in saved.items():
        parts += [f"{task}, {estimator}:", f"![]({quote(path.relative_to(folder).as_posix())})"]
    return parts


def _mosaic(images: Array, gap: int = 1) -> Array:
    """Images (R, C, H, W) side by side with gaps between them."""
    rows, columns, height, width = images.shape
    out = np.zeros((rows, height + gap, columns, width + gap), images.dtype)
    out[:, :height, :, :width] = images.transpose(0, 2, 1, 3)
    return out.reshape(rows * (height + gap), columns * (width + gap))[:-gap, :-gap]


def _enlarged(images: Array, factor: int) -> Array:
    return images.repeat(factor, axis=-2).repeat(factor, axis=-1)


def _show(picture: Array, axes: Axes) -> None:
    axes.imshow(picture, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _label_rows(labels: list[str], axes: Axes) -> None:
    """Labels left of the rows of a mosaic."""
    height = axes.get_images()[0].get_size()[0] / len(labels)
    axes.set_yticks([(row + 0.5) * height - 0.5 for row in range(len(labels))], labels)
    axes.tick_params(axis="y", length=0, labelsize=7)


def _share(share: float) -> str:
    """A probability in few characters."""
    return "1" if share > 0.995 else f"{share:.2f}".lstrip("0") if share >= 0.005 else "<.01"
