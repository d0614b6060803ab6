"""Figures: what a notebook imports, and what saves them all.

A figure is a function that takes (table, task, axes), the heat map one that takes (table, axes).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.curves import (
    learning_against_calls,
    learning_against_seconds,
    learning_curves,
    support_during_training,
)
from analysis.files import written_whole
from analysis.load import FLOOR, end_rows, final_rows, last_rows
from analysis.points import (
    final_scores,
    heat_map,
    rate_against_distortion,
    score_against_calls,
    score_against_seconds,
    step_times,
    timed_steps,
)
from analysis.style import (
    STYLE,
    colour,
    families,
    linestyle,
    marker,
    own_style,
    shortened,
    text_width,
)

__all__ = [
    "STYLE", "colour", "final_scores", "heat_map", "learning_against_calls",
    "learning_against_seconds", "learning_curves", "linestyle", "marker",
    "rate_against_distortion", "save_figures", "save_row", "score_against_calls",
    "score_against_seconds", "step_times", "support_during_training",
]  # fmt: skip

SUFFIXES = (".pdf", ".png")

WIDTH = 3.3
"""Of a panel, in inches: a column of most papers."""

LINE = 0.15
"""Of a legend's line, in inches."""

HANDLE = 0.47
"""Of a legend's handle and the space around its text, in inches."""

CROWD = 6
"""Most estimators whose curves share a panel; more are drawn in a row of panels for each family."""

FEW = 3
"""Tasks whose figures are drawn here: processes for more of them would take as long to start."""

Draw = Callable[[pd.DataFrame, str, Axes], None]

_CURVES = (learning_curves, learning_against_seconds, learning_against_calls)
_LOW = (final_scores, step_times, timed_steps)
_COSTS = (score_against_calls, score_against_seconds)
_REST = (support_during_training, rate_against_distortion, heat_map)
_NAMES = [draw.__name__ for draw in (final_scores, step_times, *_CURVES, *_COSTS, *_REST)]


def save_row(table: pd.DataFrame, tasks: Sequence[str], draw: Draw, folder: Path) -> Path:
    """Draw a row of axes, one for each task, into a PDF and a PNG, whose path is returned."""
    names = table.loc[table["task"].isin(tasks), "estimator"].unique()
    low = draw in _LOW
    size = (
        len(tasks) * (max(WIDTH, 2.3 + text_width(names)) if low else WIDTH),
        max(1.6, 0.6 + 0.155 * len(names)) if low else 2.5,
    )
    with own_style():
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(1, len(tasks), squeeze=False)
        for axes, task in zip(grid[0], tasks, strict=True):
            draw(table, task, axes)
        if not low:
            _add_legend(figure, _legend_of(grid[0]), beside=len(tasks) == 1)
        return save_figure(figure, folder / draw.__name__)


def _add_legend(figure: Figure, handles: dict[str, Any], beside: bool) -> None:
    """A legend beside the panel, or below a row of them, and the room that it needs."""
    width, height = figure.get_size_inches()
    if beside:
        figure.set_figwidth(width + _margin(handles))
    if not handles:
        return
    columns = 1 if beside else min(len(handles), int(width / (HANDLE + text_width(handles))))
    lines = math.ceil(len(handles) / columns)
    figure.set_figheight(max(height, LINE * lines + (0.2 if beside else 1.8)))
    figure.legend(
        [*handles.values()],
        [*map(shortened, handles)],
        loc="outside right center" if beside else "outside lower center",
        ncols=columns,
    )


def _margin(names: Iterable[str]) -> float:
    """Room for a legend at the right, in inches: at least for the families' titles."""
    return max(1.4, HANDLE + text_width(names))


def save_figures(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw everything into a folder as PNG and PDF; the paths of the PNGs.

    Where nothing is ok there is nothing to draw, and figures of an earlier time are removed. Those
    of many tasks are drawn by all cores.
    """
    for old in (folder / f"{name}{suffix}" for name in _NAMES for suffix in SUFFIXES):
        old.unlink(missing_ok=True)
    final = final_rows(table)
    tasks = sorted(final["task"].unique())
    if not tasks:
        return []
    ends = end_rows(table)
    with_rate = sorted(final.loc[final["rate"].notna(), "task"].unique())
    row = delayed(save_row)
    drawings = [
        row(ends, tasks, final_scores, folder),
        row(last_rows(table), tasks, step_times, folder),
        delayed(_save_heat_map)(ends, folder),
        *(delayed(_save_curves)(table, tasks, draw, folder) for draw in _CURVES),
        row(table, tasks, support_during_training, folder),
        *(row(ends, tasks, draw, folder) for draw in _COSTS),
    ]
    if with_rate:
        drawings.append(row(ends, with_rate, rate_against_distortion, folder))
    return Parallel(n_jobs=1 if len(tasks) <= FEW else -1)(drawings)


def _save_curves(
    table: pd.DataFrame, tasks: Sequence[str], draw: Callable[..., None], folder: Path
) -> Path:
    """Curves in a row of panels, or, where they are many, in a row for each family."""
    ran = table.loc[table["status"] != "skipped", "estimator"].unique()
    rows = families(ran)
    if sum(map(len, rows.values())) <= CROWD or len(rows) < 2:
        return save_row(table, tasks, draw, folder)
    with own_style():
        heights = [max(1.5, LINE * (len(family) + 3)) for family in rows.values()]  # with a title
        figure, grid, legends = _panels(heights, len(tasks), _margin(ran))
        for row, (title, family) in enumerate(rows.items()):
            for axes, task in zip(grid[row], tasks, strict=True):
                draw(table, task, axes, highlight=family)
                if row > 0:
                    axes.set_title("")
                if row < len(rows) - 1:
                    axes.set_xlabel("")
            handles = _legend_of(grid[row])
            legends[row].legend(
                [*handles.values()], [*map(shortened, handles)], loc="center left", title=title,
                title_fontsize=7, alignment="left", borderaxespad=0,
            )  # fmt: skip
        return save_figure(figure, folder / draw.__name__)


def _panels(
    heights: Sequence[float], columns: int, right: float
) -> tuple[Figure, list[list[Axes]], list[Axes]]:
    """Panels that share the x axis of their column, and room for a legend at the right of each row.

    Margins, and the heights of rows, are set by hand, in inches: to find them would take as long as
    to draw.
    """
    left, top, bottom, gap = 0.7, 0.4, 0.4, 0.12
    rows = len(heights)
    size = (WIDTH * columns + right, sum(heights) + (rows - 1) * gap + top + bottom)
    figure = Figure(figsize=size)
    grid = figure.subplots(
        rows, columns, squeeze=False, sharex="col", sharey="col", height_ratios=heights
    )
    figure.subplots_adjust(
        left=left / size[0], right=1 - right / size[0], bottom=bottom / size[1],
        top=1 - top / size[1], wspace=left / (WIDTH - left), hspace=gap * rows / sum(heights),
    )  # fmt: skip
    legends = []
    for row in grid:
        place = row[-1].get_position()
        legends.append(
            figure.add_axes((place.x1 + 0.1 / size[0], place.y0, 1 / size[0], place.height))
        )
        legends[-1].axis("off")
    return figure, grid.tolist(), legends


def _save_heat_map(table: pd.DataFrame, folder: Path) -> Path:
    names = table.loc[table["status"] != "skipped", "estimator"].unique()
    tasks = table.loc[table["status"] == "ok", "task"].nunique()
    width = max(WIDTH, 1.0 + text_width(names) + 0.9 * tasks)
    with own_style():
        figure = Figure(figsize=(width, 0.6 + 0.17 * len(names)), layout="constrained")
        heat_map(table, figure.subplots())
        return save_figure(figure, folder / heat_map.__name__)


def _legend_of(line: Sequence[Axes]) -> dict[str, Any]:
    """Every estimator's handle once, the floor's last."""
    handles = {
        label: handle
        for axes in line
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    order = [name for family in families(handles).values() for name in family]
    return {name: handles[name] for name in [*order, *({FLOOR} & handles.keys())]}


def save_figure(figure: Figure, stem: Path) -> Path:
    """Save a figure as PDF and PNG, whose path is returned.

    It is laid out once, for both: laying out takes as long as drawing.
    """
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    for suffix in SUFFIXES:
        with written_whole(stem.with_suffix(suffix)) as file:
            figure.savefig(file, format=suffix[1:])
    return stem.with_suffix(".png")
