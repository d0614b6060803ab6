"""Figures of stored examples."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.examples import (
    DRAW,
    Arrays,
    draw_bits,
    draw_histogram,
    draw_images,
    draw_pairs,
    draw_trees,
    examples_figure,
    examples_section,
    read_examples,
    save_examples,
)
from analysis.report import write_report
from analysis.stored import ResultsError
from tests.analysis.pages import cell, table_of
from tests.analysis.synthetic import write

RANDOM = np.random.default_rng(0)


def grey(*shape: int) -> np.ndarray[Any, Any]:
    return RANDOM.integers(1, 256, shape, dtype=np.uint8)


ARRAYS: dict[str, Arrays] = {
    "images": {"images": grey(2, 3, 4, 4), "labels": np.array(["a", "b"])},
    "pairs": {"original": grey(3, 4, 4), "reconstruction": grey(3, 4, 4)},
    "histogram": {"share": np.array([0.2, 0.5, 0.3], dtype=np.float32)},
    "bits": {
        "original": grey(2, 4, 4), "reconstruction": grey(2, 3, 4, 4),
        "bits": np.array([[[1, 0]] * 3] * 2, dtype=np.uint8), "support": np.array([4.0, 1.0]),
        "probability": np.array([[0.6, 0.3, 0.1], [1, 0, 0]]),
    },
    "trees": {
        "words": np.array([["[MAX", "3", "]"], ["7", "", ""]]),
        "heads": np.array([[[0, 0, 0], [0, 0, 1]], [[0, 0, 1], [0, 0, 1]]], dtype=np.int16),
        "truth": np.array([[0, 0, 0], [0, -1, -1]], dtype=np.int16),
        "probability": np.array([[0.6, 0.4], [1, 0]]),
    },
}  # fmt: skip


def store(folder: Path, task: str, estimator: str, key: str, **examples: Arrays) -> Path:
    path = folder / "examples" / f"task={task}" / f"estimator={estimator}" / f"{key}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {
        f"{name}/{part}": array
        for name, arrays in examples.items()
        for part, array in {"kind": np.array(name), "title": np.array("a title"), **arrays}.items()
    }
    np.savez_compressed(path, **parts)  # type: ignore[arg-type]
    return path


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_images_stand_in_rows_with_a_gap() -> None:
    axes = Figure().subplots()
    draw_images(ARRAYS["images"], axes)
    (picture,) = axes.get_images()
    shown = np.asarray(picture.get_array())
    assert shown.shape == (9, 14)
    np.testing.assert_array_equal(shown[5:9, 10:14], ARRAYS["images"]["images"][1, 2])
    assert (shown[4] == 0).all()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_pairs_stand_one_above_the_other() -> None:
    axes = Figure().subplots()
    draw_pairs(ARRAYS["pairs"], axes)
    shown = np.asarray(axes.get_images()[0].get_array())
    np.testing.assert_array_equal(shown[:4, 5:9], ARRAYS["pairs"]["original"][1])
    np.testing.assert_array_equal(shown[5:, 5:9], ARRAYS["pairs"]["reconstruction"][1])


def test_shares_are_drawn_from_the_greatest() -> None:
    axes = Figure().subplots()
    draw_histogram(ARRAYS["histogram"], axes)
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.5, 0.3, 0.2])  # type: ignore[attr-defined]


def test_bit_vectors_have_their_probability_and_what_is_not_there_is_blank() -> None:
    axes = Figure().subplots()
    draw_bits(ARRAYS["bits"], axes)
    assert texts(axes) == [".60", ".30", ".10", "1"]
    shown = np.asarray(axes.get_images()[0].get_array())
    height, width = shown.shape
    assert shown[height // 2 + 2 :, width // 2 + 2 :].max() == 0
    np.testing.assert_array_equal(shown[:48:12, :48:12], ARRAYS["bits"]["original"][0])
    assert set(np.unique(shown[48:52, 52:98])) == {0, 30, 215}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["4", "1"]


def test_each_word_of_a_tree_has_an_arc_to_its_head() -> None:
    """Dashed where it is none of the true tree's; nothing past a sentence's end."""
    axes = Figure().subplots()
    draw_trees(ARRAYS["trees"], axes)
    assert texts(axes) == ["[MAX", "3", "]", ".60", "[MAX", "3", "]", ".40", "7", "1"]
    ends = [(line.get_xdata()[0], line.get_xdata()[-1]) for line in axes.lines]  # type: ignore[index]
    assert ends == [
        (0, 0), (pytest.approx(1), pytest.approx(0)), (pytest.approx(2), pytest.approx(0)),
        (5, 5), (pytest.approx(6), pytest.approx(5)), (pytest.approx(7), pytest.approx(6)),
        (0, 0),
    ]  # fmt: skip
    assert [line.get_linestyle() for line in axes.lines] == ["-"] * 5 + ["--", "-"]


def test_every_kind_is_read_back_and_drawn(tmp_path: Path) -> None:
    found = read_examples(store(tmp_path, "t", "e", "k", **ARRAYS, unheard_of={}))
    assert set(found) == set(DRAW)
    assert len(examples_figure(found).axes) == len(DRAW)


def test_the_first_seed_that_has_examples_is_shown(tmp_path: Path) -> None:
    table = table_of(*(cell("images", "sfe", seed, 0.5) for seed in (2, 0, 1)))
    table["key"] = "k" + table["seed"].astype(str)
    stale = tmp_path / "figures" / "examples" / "old.png"
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert save_examples(table, tmp_path) == {}
    assert not stale.exists()
    store(tmp_path, "images", "sfe", "k2", images=ARRAYS["images"])
    store(tmp_path, "images", "sfe", "k1", histogram=ARRAYS["histogram"])
    store(tmp_path, "images", "sfe", "of another grid", pairs=ARRAYS["pairs"])
    saved = save_examples(table, tmp_path)
    assert list(saved) == [("images", "sfe")]
    assert saved["images", "sfe"].read_bytes().startswith(b"\x89PNG")
    assert examples_section(saved, tmp_path)[-1] == "![](figures/examples/images-sfe.png)"
    assert examples_section({}, tmp_path) == []


def test_examples_depend_on_no_setting_of_the_users(tmp_path: Path) -> None:
    table = table_of(cell("images", "sfe", 0, 0.5)).assign(key="k")
    store(tmp_path, "images", "sfe", "k", histogram=ARRAYS["histogram"])
    (path,) = save_examples(table, tmp_path).values()
    ours = path.read_bytes()
    with mpl.rc_context({"text.usetex": True, "savefig.bbox": "tight", "text.color": "white"}):
        save_examples(table, tmp_path)
    assert path.read_bytes() == ours


def test_a_name_with_a_path_in_it_stays_in_the_folder(tmp_path: Path) -> None:
    table = table_of(cell("images", "../../out", 0, 0.5)).assign(key="k")
    store(tmp_path, "images", "sfe", "k", images=ARRAYS["images"])
    (path,) = save_examples(table, tmp_path).values()
    assert path.parent == tmp_path / "figures" / "examples"
    assert path.is_file()


def test_a_damaged_file_is_said_in_a_line(tmp_path: Path) -> None:
    path = store(tmp_path, "t", "e", "k", images=ARRAYS["images"])
    for content in (b"", b"PK and no more", path.read_bytes()[:300]):
        path.write_bytes(content)
        with pytest.raises(ResultsError, match=r"k\.npz is damaged: delete it"):
            read_examples(path)


def test_the_report_and_the_page_show_them(tmp_path: Path) -> None:
    table = table_of(cell("images", "sfe", 0, 0.5))
    write(table, tmp_path)
    store(tmp_path, "images", "sfe", "imagessfe0", images=ARRAYS["images"])
    written = write_report(tmp_path)
    assert tmp_path / "report.html" in written
    text, page = ((tmp_path / name).read_text() for name in ("report.md", "report.html"))
    assert "![](figures/examples/images-sfe.png)" in text
    assert 'src="data:image/png;base64,' in page
    said = "Of the first seed of each estimator, with the parameters that did best on validation."
    assert said in text
    assert said in page
