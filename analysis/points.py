"""Figures of what training led to and what it cost, as functions from a results table to axes."""

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy import stats

from analysis.load import FLOOR, final_rows, last_rows
from analysis.scores import ended_badly, normalised, score_frame, score_of
from analysis.statistics import mean_interval
from analysis.style import (
    DARK,
    GREY,
    colour,
    entitle,
    floor_note,
    logarithmic,
    luminance,
    marker,
    ordered,
    shortened,
    to_scale,
)
from analysis.tables import COLUMNS
from analysis.times import under_equal_circumstances

REACH = 6.0
"""Means further from their median than this many times the median distance are off the scale."""

CROWD = 5
"""Fewest estimators of which any is off the scale: of fewer, none can be said to be the odd one."""


def final_scores(table: pd.DataFrame, task: str, axes: Axes) -> None:
    """Test score of every estimator, best on top: mean, 95% t interval, and every seed as a dot.

    The floor is a dashed line, chance a dotted one; how many cells failed, diverged or gave no
    score stands beside the name. A mean far from the others is an arrow at the edge with its value,
    a seed beyond the edge a small arrow, an interval that goes on beyond it an open one.
    """
    frame = score_frame(table, task)
    column, label, more_is_better = score_of(final_rows(table[table["task"] == task]))
    bad = ended_badly(table, task).drop(FLOOR, errors="ignore")
    bad = bad[bad > 0]
    means = frame.mean().drop(FLOOR, errors="ignore").sort_values(ascending=more_is_better)
    names = [*sorted(set(bad.index) - set(means.index), reverse=True), *map(str, means.index)]
    best = str(means.index[-1]) if len(means) else ""
    left, right = _limits(frame.drop(columns=FLOOR, errors="ignore"), best)
    if column == "accuracy":  # a t interval of few seeds may reach beyond all shares there are
        left, right = max(left, -0.02), min(right, 1.02)
    for height, name in enumerate(names):
        if name in means:
            _final_score(axes, frame[name].dropna(), height, name, (left, right))
    lost = [f" ({bad[name]} ✕)" if name in bad else "" for name in names]
    labels = [shortened(name) + said for name, said in zip(names, lost, strict=True)]
    axes.set_yticks(range(len(names)), labels)
    axes.set(xlabel=f"test {label}", ylim=(-0.7, len(names) - 0.3), xlim=(left, right))
    floor = frame[FLOOR].mean() if FLOOR in frame else np.nan
    entitle(axes, task, _mark_floor(axes.axvline, floor, (left, right)))
    chance = table.loc[table["task"] == task, "chance"].dropna()
    if column == "accuracy" and not chance.empty and left <= chance.iloc[0] <= right:
        axes.axvline(chance.iloc[0], color=GREY, linestyle=":", linewidth=1)


def score_against_calls(table: pd.DataFrame, task: str, axes: Axes) -> None:
    """Test score against decoder calls for each example: means ± standard error, Pareto front.

    The estimators on the front are filled: no other scores as well for as few calls. What lost runs
    is not on it: how many failed, diverged or gave no score stands beside the point.
    """
    rows = final_rows(table[table["task"] == task])
    _score_against(rows, "decoder_calls", ended_badly(table, task), task, axes)
    axes.set_xlabel("decoder calls for each example")


def score_against_seconds(table: pd.DataFrame, task: str, axes: Axes) -> None:
    """The same against seconds of training, of cells that ran under equal circumstances."""
    rows, note = under_equal_circumstances(final_rows(table[table["task"] == task]))
    _score_against(rows, "train_seconds", ended_badly(table, task), task, axes, note)
    axes.set_xlabel("seconds of training")


def rate_against_distortion(table: pd.DataFrame, task: str, axes: Axes) -> None:
    """Rate and distortion on test, as means ± standard error; grey lines have equal ELBO.

    Its values stand at their lower ends. How many runs failed, diverged or gave no score stands
    beside the point.
    """
    bad = ended_badly(table, task)
    rows = final_rows(table[table["task"] == task]).dropna(subset=["rate", "distortion"])
    groups = {str(name): own for name, own in rows.groupby("estimator")}
    for name in ordered(groups):
        rate, distortion = groups[name]["rate"], groups[name]["distortion"]
        at = float(rate.mean()), float(distortion.mean())
        axes.errorbar(
            *at, xerr=_error(rate), yerr=_error(distortion), color=colour(name),
            marker=marker(name), elinewidth=0.7, linestyle="none", label=name,
        )  # fmt: skip
        _mark_lost(axes, name, bad[name], at)
    axes.autoscale_view()
    axes.set(xlabel="rate (nats)", ylabel="distortion (nats)")
    _equal_elbos(axes)
    note = ""
    if FLOOR in groups:
        floor = groups[FLOOR][["rate", "distortion"]].mean()
        note = f"{FLOOR}: rate {floor['rate']:.2f}, distortion {floor['distortion']:.1f} nats"
    entitle(axes, task, note)


def _equal_elbos(axes: Axes) -> None:
    """Grey lines of equal ELBO, with its values where they end: at the right or at the bottom."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    totals = MaxNLocator(6).tick_values(left + bottom, right + top)

    def turned(value: Any) -> Any:
        """The ELBO at the right for a distortion, and the other way round."""
        return -value - right

    edge = axes.secondary_yaxis("right", functions=(turned, turned))
    edge.set_yticks([-total for total in totals if bottom <= total - right <= top])
    edge.set_ylabel("ELBO (nats)", color=GREY)
    edge.tick_params(length=0, labelsize=6, labelcolor=GREY)
    edge.spines[:].set_visible(False)
    for total in totals:
        axes.axline((0, total), slope=-1, color="#e3e3e3", linewidth=0.7, zorder=0)
        if left <= total - bottom < right:
            axes.annotate(
                f"{-total:g}".replace("-", "−"), (total - bottom, bottom), xytext=(2, 2),
                textcoords="offset points", fontsize=6, color=GREY, zorder=0,
            )  # fmt: skip
    axes.set(xlim=(left, right), ylim=(bottom, top))


def step_times(table: pd.DataFrame, task: str, axes: Axes) -> None:
    """Milliseconds of a training step, fastest on top: mean over seeds, and every seed as a dot.

    Of cells that ran under equal circumstances, evaluation and warm start left out.
    """
    # A row of the best model has the seconds of the whole training, but the step of that model.
    rows, note = under_equal_circumstances(last_rows(table[table["task"] == task]))
    rows = rows[(rows["step"] > 0) & (rows["train_seconds"] > 0)]
    times = 1e3 * rows["train_seconds"] / rows["step"]
    _list_times(times, rows["estimator"], times.groupby(rows["estimator"]).mean(), axes)
    entitle(axes, task, note)


def timed_steps(table: pd.DataFrame, task: str, axes: Axes) -> None:
    """The same from a table of timed steps: median, and every repetition as a dot."""
    rows, note = under_equal_circumstances(table[table["task"] == task])
    medians = rows.groupby("estimator")["milliseconds"].median()
    _list_times(rows["milliseconds"], rows["estimator"], medians, axes)
    entitle(axes, task, note)


def _list_times(times: pd.Series, estimators: pd.Series, middle: pd.Series, axes: Axes) -> None:
    """Milliseconds as dots and each estimator's middle, a line for each, fastest on top."""
    middle = middle.sort_values(ascending=False)
    for height, name in enumerate(map(str, middle.index)):
        own = times[estimators == name]
        axes.plot(own, [height] * len(own), ".", color=colour(name), markersize=3, alpha=0.5)
        axes.plot(middle[name], height, color=colour(name), marker=marker(name))
    axes.set_yticks(range(len(middle)), [shortened(str(name)) for name in middle.index])
    axes.set(xlabel="milliseconds a step", ylim=(-0.7, len(middle) - 0.3))
    if len(middle) and middle.max() > 5 * middle.min():
        logarithmic(axes.xaxis)


def heat_map(table: pd.DataFrame, axes: Axes) -> None:
    """Mean test score of each estimator on each task; colours are normalised within a task.

    0 is the worst mean of the task, the floor included, 1 the best; where all are equal, there is
    no colour. Hatched: no run ended well. A cross marks a mean from which runs that failed or
    diverged are missing.
    """
    tasks = sorted(table.loc[table["status"] == "ok", "task"].unique())
    frames = {task: score_frame(table, task) for task in tasks}
    scores = {task: score_of(final_rows(table[table["task"] == task])) for task in tasks}
    bad = {task: ended_badly(table, task) for task in tasks}
    ran = table.loc[table["status"] != "skipped", "estimator"].unique()
    names = [*ordered(ran), *([FLOOR] if FLOOR in ran else [])]
    shade = pd.DataFrame(
        {task: _shades(frames[task], scores[task].more_is_better) for task in tasks}
    ).reindex(names)
    text = pd.DataFrame(
        {
            task: _cell_texts(
                frames[task].mean(), bad[task], COLUMNS[scores[task].column][1], names
            )
            for task in tasks
        },
        index=names,
    )
    sns.heatmap(
        shade, cmap="cividis", vmin=0, vmax=1, linewidths=0.5, mask=shade.isna(), ax=axes,
        xticklabels=False, yticklabels=False, cbar=bool(shade.notna().any(axis=None)),
        cbar_kws={"ticks": [0, 1], "format": {0: "worst", 1: "best"}.get, "shrink": 0.7},
    )  # fmt: skip
    for row, column in np.ndindex(shade.shape):
        scored = names[row] in frames[tasks[column]]
        said, share = str(text.iloc[row, column]), float(shade.to_numpy()[row, column])
        _heat_cell(axes, row, column, said, scored, share)
    heads = [f"{task}\n{scores[task].label}" for task in tasks]
    axes.set_xticks(np.arange(len(tasks)) + 0.5, heads)
    axes.set_yticks(np.arange(len(names)) + 0.5, list(map(shortened, names)))
    axes.set(xlabel="", ylabel="")
    axes.tick_params(length=0)


def _shades(frame: pd.DataFrame, more_is_better: bool) -> pd.Series:
    """Means from the worst to the best of a task, NaN where they do not differ."""
    means = normalised(frame, more_is_better).mean()
    return means if means.nunique() > 1 else means * np.nan


def _heat_cell(axes: Axes, row: int, column: int, text: str, scored: bool, shade: float) -> None:
    """The text of a cell, in black or white as can be read; hatches where there is no score."""
    if not scored:
        axes.fill_between(
            [column, column + 1], row, row + 1, facecolor="#f4f4f4", edgecolor="#c8c8c8",
            hatch="////", linewidth=0, zorder=0,
        )  # fmt: skip
    dark = not np.isnan(shade) and luminance(mpl.colormaps["cividis"](shade)) < DARK
    axes.text(
        column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7,
        color="white" if dark else "black",
    )  # fmt: skip


def _cell_texts(means: pd.Series, bad: pd.Series, fmt: str, names: list[str]) -> list[str]:
    """Means as far as there are any, with how many runs are missing from them."""
    scores = [format(means[name], fmt) if name in means else "" for name in names]
    missing = [f" {bad[name]} ✕" if bad.get(name, 0) else "" for name in names]
    return [score + lost for score, lost in zip(scores, missing, strict=True)]


def _final_score(
    axes: Axes, seeds: pd.Series, height: int, name: str, limits: tuple[float, float]
) -> None:
    mean, low, high = map(float, mean_interval(seeds.to_numpy(float)))
    if not limits[0] <= mean <= limits[1]:
        right = _arrow(axes, mean, height, name, limits)
        axes.annotate(
            to_scale(mean, limits), (limits[int(right)], height), xytext=(-5 if right else 5, 0),
            textcoords="offset points", ha="right" if right else "left", va="center", fontsize=7,
        )  # fmt: skip
        return
    axes.plot([low, high], [height, height], color=colour(name), linewidth=0.9)
    for end in (low, high):
        if not np.isnan(end) and not limits[0] <= end <= limits[1]:
            _arrow(axes, end, height, name, limits, markersize=4.5, markerfacecolor="white")
    axes.plot(seeds, [height] * len(seeds), ".", color=colour(name), markersize=4, alpha=0.5)
    for seed in seeds[~seeds.between(*limits)]:
        _arrow(axes, seed, height, name, limits, markersize=3, alpha=0.5)
    axes.plot(mean, height, color=colour(name), marker=marker(name), markersize=4.5)


def _arrow(
    axes: Axes, value: float, height: int, name: str, limits: tuple[float, float], **look: Any
) -> bool:
    """An arrow at the edge that a value lies beyond; whether that is the right one."""
    right = value > limits[1]
    axes.plot(
        limits[int(right)], height, marker=">" if right else "<", color=colour(name),
        clip_on=False, **look,
    )  # fmt: skip
    return right


def _limits(frame: pd.DataFrame, best: str) -> tuple[float, float]:
    """What to show of scores and their intervals: all, unless some are far from the others.

    The best one's scores are shown however far they are: they are what is looked for.
    """
    if frame.empty:
        return 0.0, 1.0
    parts = [mean_interval(frame[name].dropna().to_numpy(float)) for name in frame]
    mean, low, high = (
        pd.Series(list(map(float, part)), frame.columns) for part in zip(*parts, strict=True)
    )
    left, right = low.fillna(np.inf), high.fillna(-np.inf)
    left, right = left.clip(upper=frame.min()), right.clip(lower=frame.max())
    if len(mean) >= CROWD:
        middle = mean.median()
        reach = REACH * max((mean - middle).abs().median(), 0.01 * abs(middle), 1e-9)
        near = ((mean - middle).abs() <= reach) | (mean.index == best)
        ends = [middle - 1.5 * reach, middle + 1.5 * reach, *frame[best].dropna()]
        left, right = left[near].clip(lower=min(ends)), right[near].clip(upper=max(ends))
    low_end, high_end = float(left.min()), float(right.max())
    margin = 0.04 * (high_end - low_end) or 0.04 * abs(high_end) or 0.04
    return low_end - margin, high_end + margin


def _score_against(
    rows: pd.DataFrame, cost: str, bad: pd.Series, task: str, axes: Axes, note: str = ""
) -> None:
    column, label, more_is_better = score_of(rows)
    rows = rows[np.isfinite(rows[column])]
    floor = rows.loc[rows["estimator"] == FLOOR, column].mean()
    rows = rows[(rows["estimator"] != FLOOR) & (rows[cost] > 0)]
    means = rows.groupby("estimator")[[cost, column]].mean()
    whole = means.loc[[name for name in means.index if not bad[name]]]
    front = pareto_front(whole[cost], whole[column] * (1 if more_is_better else -1))
    groups = {str(name): own for name, own in rows.groupby("estimator")}
    for name in ordered(groups):
        x, y = map(float, means.loc[name])
        look: dict[str, Any] = {
            "color": colour(name), "marker": marker(name), "markersize": 4.5,
            "markeredgewidth": 0.7, "linestyle": "none",
        }  # fmt: skip
        axes.errorbar(
            x, y, xerr=_error(groups[name][cost]), yerr=_error(groups[name][column]),
            markerfacecolor="white", elinewidth=0.7, label=name, **look,
        )  # fmt: skip
        if name in front:  # over an open marker: legends show that one, for panels may differ
            axes.plot(x, y, zorder=3, **look)
        _mark_lost(axes, name, bad[name], (x, y))
    best = means.loc[front].sort_values(cost)
    axes.step(best[cost], best[column], where="post", color=GREY, linewidth=0.9, zorder=1)
    logarithmic(axes.xaxis)
    axes.set_ylabel(f"test {label}")
    axes.margins(y=0.08)
    axes.autoscale_view()
    entitle(axes, task, note, _mark_floor(axes.axhline, floor, axes.get_ylim()))


def _mark_lost(axes: Axes, name: str, lost: int, at: tuple[float, float]) -> None:
    """Beside a mean, how many runs are missing from it, if any."""
    if lost:
        axes.annotate(
            f"{lost} ✕", at, xytext=(3, 3), textcoords="offset points", fontsize=6,
            color=colour(name),
        )  # fmt: skip


def pareto_front(cost: pd.Series, gain: pd.Series) -> list[str]:
    """The names that no other beats in one of the two without losing in the other."""
    return [
        str(name)
        for name in cost.index
        if not (
            (cost <= cost[name])
            & (gain >= gain[name])
            & ((cost < cost[name]) | (gain > gain[name]))
        ).any()
    ]


def _error(values: pd.Series) -> float:
    """Standard error, 0 where there is none."""
    return float(stats.sem(values)) if len(values) > 1 else 0.0


def _mark_floor(line: Callable[..., object], floor: float, limits: tuple[float, float]) -> str:
    """A dashed line, or, where the floor lies too far off, a note to give in its place."""
    if limits[0] <= floor <= limits[1]:
        line(floor, color=GREY, linestyle="--", linewidth=1, label=FLOOR, zorder=0)
    return floor_note(floor, limits)
