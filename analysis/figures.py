"""Figures: functions from a results table to axes, and one that saves them all."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.load import FLOOR, final_rows

SCORES = (
    ("nll", "NLL (bits/dim)", False),
    ("accuracy", "accuracy", True),
    ("elbo", "ELBO (nats)", True),
    ("loss", "objective (nats)", False),
)
"""Column, label, and whether more is better: rows are judged by the first column that they have."""

_KNOWN = (
    "sfe", "sfe-ma", "sfe-learned", "sfe-selfcritic", "sfe-second-sample", "nvil", "rloo",
    "sum-and-sample", "gumbel", "st-gumbel", "dense", "sparsemax", "topk-sparsemax", "sparsemap",
    "sparsemap-budget",
)  # fmt: skip
_FIRST_SUM = _KNOWN.index("dense")
_MARKERS = "osD^vP<>XpdhH8*"

SUFFIXES = (".pdf", ".png")

Draw = Callable[[pd.DataFrame, str, Axes], None]

STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 8,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "savefig.bbox": "tight",
    "savefig.dpi": 200,
}


def colour(estimator: str) -> tuple[float, float, float]:
    """The estimator's colour, the same in every figure and for every subset."""
    palette = sns.color_palette("colorblind", 10)
    if estimator == FLOOR:
        return (0.4, 0.4, 0.4)
    return palette[_place(estimator) % len(palette)]


def marker(estimator: str) -> str:
    """The estimator's marker, which tells apart those that share a colour."""
    return "." if estimator == FLOOR else _MARKERS[_place(estimator) % len(_MARKERS)]


def linestyle(estimator: str) -> str:
    """Exact sums are solid, estimates from samples dashed, which tells the colours apart too."""
    return "-" if estimator in (*_KNOWN[_FIRST_SUM:], FLOOR) else "--"


def _place(estimator: str) -> int:
    return _KNOWN.index(estimator) if estimator in _KNOWN else sum(estimator.encode())


def score_of(rows: pd.DataFrame) -> tuple[str, str, bool]:
    """The column that rows of one task are judged by, its label, and whether more is better."""
    return next((score for score in SCORES if rows[score[0]].notna().any()), SCORES[-1])


def final_scores(table: pd.DataFrame, task: str, axes: Axes) -> None:
    """Test score of every estimator with its standard error over seeds, best on top.

    The floor is a dashed line, or a note where it lies too far off.
    """
    rows = final_rows(table[table["task"] == task])
    column, label, more_is_better = score_of(rows)
    scores = rows.groupby("estimator")[column].agg(["mean", "sem"]).dropna(subset=["mean"])
    floor = scores["mean"].get(FLOOR)
    scores = scores.drop(FLOOR, errors="ignore").sort_values("mean", ascending=more_is_better)
    for height, (name, score) in enumerate(scores.iterrows()):
        axes.errorbar(
            score["mean"],
            height,
            xerr=score["sem"],
            color=colour(str(name)),
            marker=marker(str(name)),
            capsize=2,
        )
    axes.set_yticks(range(len(scores)), [str(name) for name in scores.index])
    axes.set(xlabel=f"test {label}", title=task)
    if floor is not None:
        _mark_floor(axes, float(floor), scores["mean"])
    _mark_chance(rows, column, axes.axvline)


def _mark_floor(axes: Axes, floor: float, scores: pd.Series) -> None:
    spread = scores.max() - scores.min()
    if scores.min() - 2 * spread <= floor <= scores.max() + 2 * spread:
        axes.axvline(floor, color=colour(FLOOR), linestyle="--", linewidth=1, label=FLOOR)
    else:
        note = f"{FLOOR}: {floor:.3g}"
        axes.annotate(
            note, (1, 1), xycoords="axes fraction", ha="right", va="top", color=colour(FLOOR)
        )


def score_against_calls(table: pd.DataFrame, task: str, axes: Axes) -> None:
    """Test score against decoder calls for each example, both as means over seeds."""
    rows = final_rows(table[table["task"] == task])
    column, label, _ = score_of(rows)
    means = rows.groupby("estimator")[[column, "decoder_calls"]].mean().dropna()
    for name, mean in means.iterrows():
        axes.plot(
            mean["decoder_calls"],
            mean[column],
            color=colour(str(name)),
            marker=marker(str(name)),
            linestyle="none",
            label=name,
        )
    axes.set(xscale="log", xlabel="decoder calls for each example", title=task)
    axes.set_ylabel(f"test {label}")


def learning_curves(table: pd.DataFrame, task: str, axes: Axes) -> None:
    """Score on validation during training, as the mean over seeds."""
    rows = table[
        (table["task"] == task) & (table["status"] == "ok") & (table["split"] == "validation")
    ]
    column, label, _ = score_of(rows)
    for name, cells in rows.groupby("estimator"):
        curve = cells.groupby("step")[["epoch", column]].mean()
        axes.plot(
            curve["epoch"],
            curve[column],
            color=colour(str(name)),
            marker=marker(str(name)),
            linestyle=linestyle(str(name)),
            markersize=3,
            linewidth=1,
            label=name,
        )
    axes.set(xlabel="epoch", ylabel=f"validation {label}", title=task)
    _mark_chance(rows, column, axes.axhline)


def _mark_chance(rows: pd.DataFrame, column: str, line: Callable[..., object]) -> None:
    chance = rows["chance"].dropna()
    if column == "accuracy" and not chance.empty:
        line(chance.iloc[0], color="grey", linestyle=":", linewidth=1)


def save_row(table: pd.DataFrame, tasks: Sequence[str], draw: Draw, folder: Path) -> Path:
    """Draw a row of axes, one for each task, into a PDF and a PNG, whose path is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / draw.__name__
    with mpl.rc_context(STYLE):
        figure = _row_of_axes(table, tasks, draw)
        for suffix in SUFFIXES:
            figure.savefig(stem.with_suffix(suffix))
    return stem.with_suffix(".png")


def save_figures(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw everything into a folder as PNG and PDF; the paths of the PNGs.

    Where nothing is ok there is nothing to draw, and figures of an earlier time are removed.
    """
    draws = (final_scores, learning_curves, score_against_calls)
    for old in (folder / f"{draw.__name__}{suffix}" for draw in draws for suffix in SUFFIXES):
        old.unlink(missing_ok=True)
    tasks = sorted(table.loc[table["status"] == "ok", "task"].unique())
    if not tasks:
        return []
    return [save_row(table, tasks, draw, folder) for draw in draws]


def _row_of_axes(table: pd.DataFrame, tasks: Sequence[str], draw: Draw) -> Figure:
    figure = Figure(figsize=(3.4 * len(tasks), 3.1), layout="constrained")
    grid = figure.subplots(1, len(tasks), squeeze=False)
    for axes, task in zip(grid[0], tasks, strict=True):
        draw(table, task, axes)
    if draw is not final_scores:
        handles = {
            label: handle
            for axes in grid[0]
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6)
    return figure
