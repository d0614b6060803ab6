"""Figures of what happens during training, as functions from a results table to axes.

Every one takes the table, a task, the axes, and optionally the estimators to bring out: the others
stay in the background, in light grey.
"""

from collections.abc import Collection

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from analysis.load import FLOOR, while_all_go_on
from analysis.scores import ENDED_BADLY, score_of
from analysis.style import (
    GREY,
    colour,
    entitle,
    floor_note,
    linestyle,
    logarithmic,
    marker,
    plain,
)
from analysis.times import under_equal_circumstances

BACKGROUND = "#d9d9d9"

WIDE = 3.0
"""Longest time to the usual one, from which on the axis is logarithmic."""


def learning_curves(
    table: pd.DataFrame, task: str, axes: Axes, highlight: Collection[str] | None = None
) -> None:
    """Score on validation against epochs: mean over seeds, with a band of ± standard error.

    A curve ends where the first of its runs does. Where a single evaluation is on the scale, it is
    a point with its error, and no line. Runs that failed or diverged are thin lines that end in a
    cross, at the edge if they are beyond it. Where the floor ends off the scale, the title has its
    last value.
    """
    floor = _score_curves(_validation(table, task), "epoch", axes, highlight)
    axes.set_xlabel("epoch")
    entitle(axes, task, floor)


def learning_against_seconds(
    table: pd.DataFrame, task: str, axes: Axes, highlight: Collection[str] | None = None
) -> None:
    """The same against seconds of training, of cells that ran under equal circumstances.

    From the first evaluation after the start, on a logarithmic axis where times differ much.
    """
    rows = _validation(table, task)
    rows, note = under_equal_circumstances(rows[rows["train_seconds"] > 0])
    floor = _score_curves(rows, "train_seconds", axes, highlight)
    ends = rows[rows["estimator"] != FLOOR].groupby("estimator")["train_seconds"].max()
    if len(ends) and ends.max() > WIDE * ends.median():
        logarithmic(axes.xaxis)
    axes.set_xlabel("seconds of training")
    entitle(axes, task, note, floor)


def learning_against_calls(
    table: pd.DataFrame, task: str, axes: Axes, highlight: Collection[str] | None = None
) -> None:
    """The same against decoder calls for the latent variable, from the first on."""
    rows = _validation(table, task)
    rows = rows[rows["decoder_calls_total"] > 0]
    floor = _score_curves(rows, "decoder_calls_total", axes, highlight)
    logarithmic(axes.xaxis)
    axes.set_xlabel("decoder calls in training")
    entitle(axes, task, floor)


def support_during_training(
    table: pd.DataFrame, task: str, axes: Axes, highlight: Collection[str] | None = None
) -> None:
    """Assignments with positive probability on validation: mean over seeds, 10% to 90% as a band.

    Estimators whose support stays the same within a tenth share one grey line, if no other that
    stays is larger.
    """
    rows = while_all_go_on(_ok(_validation(table, task)).dropna(subset=["support_mean"]))
    full = rows.groupby("estimator")["support_mean"].agg(["min", "max"])
    fixed = full.loc[full["min"] > 0.9 * full["max"], "max"].round()
    shared = fixed[fixed == fixed.max()]
    if len(shared):
        _shared_support(axes, shared.iloc[0], rows["epoch"], len(shared) == len(full))
    for name, cells in _shown(rows[~rows["estimator"].isin(shared.index)], highlight):
        curve = cells.groupby("step")[["epoch", "support_mean"]].mean()
        low, high = (cells.groupby("step")["support_mean"].quantile(q) for q in (0.1, 0.9))
        _line(axes, name, curve["epoch"], curve["support_mean"], low, high)
    if not rows.empty and rows["support_mean"].max() > 8 * max(rows["support_mean"].min(), 1e-9):
        logarithmic(axes.yaxis)
    axes.set(xlabel="epoch", ylabel="support (assignments)", title=task)


def _shared_support(axes: Axes, size: float, epochs: pd.Series, by_all: bool) -> None:
    """A grey line as long as training was, with the size that it stands for."""
    axes.plot([epochs.min(), epochs.max()], [size, size], color=GREY, linewidth=1)
    bits = np.log2(size)
    said = f"$2^{{{bits:.0f}}}$" if size >= 1e4 and bits % 1 == 0 else plain(size)
    axes.annotate(
        f"all: {said}" if by_all else f"all others: {said}", (1, size),
        xycoords=axes.get_yaxis_transform(), xytext=(0, -2), ha="right", va="top",
        textcoords="offset points", fontsize=7, color="0.35",
    )  # fmt: skip


def _validation(table: pd.DataFrame, task: str) -> pd.DataFrame:
    return table[(table["task"] == task) & (table["split"] == "validation")]


def _ok(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["status"] == "ok"]


def _score_curves(
    rows: pd.DataFrame, across: str, axes: Axes, highlight: Collection[str] | None
) -> str:
    """Curves of scores; what has to be said of the floor."""
    column, label, _ = score_of(_ok(rows))
    ok = while_all_go_on(_ok(rows)[np.isfinite(_ok(rows)[column])])
    grouped = ok.groupby(["estimator", "step"])
    means = grouped[[across, column]].mean().assign(error=grouped[column].sem())
    means["error"] = means["error"].fillna(0.0)
    limits = _without_the_start(means[column], means["error"])
    drawn = _to_draw(means, means[column].between(*limits))
    if highlight is not None:
        _background(axes, drawn.drop([*highlight, FLOOR], level="estimator", errors="ignore"))
    for name, curve in _shown(drawn, highlight):
        _score_curve(axes, name, curve[across], curve[column], curve["error"])
    axes.set_ylabel(f"validation {label}")
    if np.isfinite(limits).all():
        axes.set_ylim(limits)
    if drawn[across].nunique() == 1:
        axes.set_xticks(drawn[across].iloc[:1])
    for name, cells in _shown(rows[rows["status"].isin(ENDED_BADLY)], highlight):
        _lost_runs(axes, name, cells.dropna(subset=[column]), across, column)
    chance = ok["chance"].dropna()
    if column == "accuracy" and not chance.empty:
        axes.axhline(chance.iloc[0], color=GREY, linestyle=":", linewidth=1)
    if FLOOR not in means.index.unique("estimator"):
        return ""
    return floor_note(float(means.loc[[FLOOR]][column].iloc[-1]), axes.get_ylim())


def _to_draw(means: pd.DataFrame, on_scale: pd.Series) -> pd.DataFrame:
    """Curves with two points or more on the scale, and of others the point that is.

    A line to a single point, from others off the scale, would show a course that none measured.
    """
    return means[on_scale | (on_scale.groupby("estimator").transform("sum") > 1)]


def _background(axes: Axes, means: pd.DataFrame) -> None:
    """Curves in light grey, or points where there is but one."""
    curves = [curve.iloc[:, :2].to_numpy() for _, curve in means.groupby("estimator")]
    axes.add_collection(LineCollection(curves, color=BACKGROUND, linewidth=0.7, zorder=1))
    for curve in curves:
        if len(curve) == 1:
            axes.plot(*curve.T, ".", color=BACKGROUND, markersize=4, zorder=1)


def _score_curve(axes: Axes, name: str, x: pd.Series, y: pd.Series, error: pd.Series) -> None:
    if len(x) > 1:
        _line(axes, name, x, y, y - error, y + error)
        return
    axes.errorbar(
        x, y, yerr=error, color=colour(name), marker=marker(name), markersize=4, elinewidth=0.7,
        linestyle="none", label=name, zorder=3,
    )  # fmt: skip


def _lost_runs(axes: Axes, name: str, cells: pd.DataFrame, across: str, column: str) -> None:
    """Runs that failed or diverged; where there is a scale for others' sake, it stays."""
    limits = axes.get_ylim() if axes.lines else (-np.inf, np.inf)
    for _, cell in cells.sort_values("step").groupby("key"):
        axes.plot(cell[across], cell[column], color=colour(name), linewidth=0.6, linestyle=":")
        axes.plot(
            cell[across].iloc[-1:], cell[column].iloc[-1:].clip(*limits), color=colour(name),
            marker="x", markersize=6, zorder=4, clip_on=False,
        )  # fmt: skip


def _shown(rows: pd.DataFrame, highlight: Collection[str] | None) -> list[tuple[str, pd.DataFrame]]:
    groups = [(str(name), cells) for name, cells in rows.groupby("estimator")]
    return [
        (name, cells)
        for name, cells in groups
        if highlight is None or name in highlight or name == FLOOR
    ]


def _line(
    axes: Axes, name: str, x: pd.Series, y: pd.Series, low: pd.Series, high: pd.Series
) -> None:
    """A curve with its band and some markers."""
    axes.fill_between(x, low, high, color=colour(name), alpha=0.18, linewidth=0, zorder=2)
    axes.plot(
        x, y, color=colour(name), linestyle=linestyle(name), marker=marker(name), markersize=3,
        markevery=max(1, len(x) // 6), label=name, zorder=3,
    )  # fmt: skip


def _without_the_start(means: pd.Series, errors: pd.Series) -> tuple[float, float]:
    """Limits of what follows the first tenth of training, and of no floor that is far away."""
    steps = means.index.to_frame()["step"]
    late = steps > steps.groupby("estimator").transform("max") / 10
    others = late & (means.index.get_level_values("estimator") != FLOOR)
    kept = others if others.any() else late
    if not kept.any():
        return -np.inf, np.inf
    low, high = (means - errors)[kept].min(), (means + errors)[kept].max()
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    return float(low - margin), float(high + margin)
