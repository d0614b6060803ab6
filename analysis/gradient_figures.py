"""Figures of gradient quality: functions from the rows that `pooled` makes to axes.

They show one group of parameters, and are relative to the exact gradient.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures import Draw, colour, marker
from analysis.gradient_rows import COUNTS, GROUP, NOISE, at_own_settings, last, swept

BOTTOM = 1e-3
"""Where a relative bias of zero is drawn."""


def variance_against_calls(rows: pd.DataFrame, task: str, axes: Axes) -> None:
    """Variance of a single estimate against decoder calls, at the last checkpoint.

    A line joins the values of a setting that calls depend on. Sums, which have no variance, are on
    the dotted line at the bottom.
    """
    _variance(last(rows, task, GROUP), "decoder_calls", task, axes)
    axes.set_xlabel("decoder calls for each example")


def variance_against_time(rows: pd.DataFrame, task: str, axes: Axes) -> None:
    """The same against the time of an estimate: up and down is equal time."""
    here = last(rows, task, GROUP)
    _variance(here.assign(milliseconds=1e3 * here["seconds"]), "milliseconds", task, axes)
    axes.set_xlabel("milliseconds of an estimate")


def _variance(here: pd.DataFrame, column: str, task: str, axes: Axes) -> None:
    positive = here.loc[here["variance"] > NOISE, "variance"]
    bottom = positive.min() / 10 if len(positive) else 1.0
    base = at_own_settings(here)
    curves = [(str(name), own) for name, own in base.groupby("estimator")]
    for knob in here["knob"].dropna().unique():
        for name, own in swept(here, knob).groupby("estimator"):
            if own["decoder_calls"].nunique() > 1:
                curves.append((str(name), own.sort_values(column)))
    for name, own in curves:
        axes.plot(
            own[column], own["variance"].clip(lower=bottom), color=colour(name),
            marker=marker(name), linewidth=0.8, markersize=4, label=name,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", title=task, ylabel="variance / ‖exact gradient‖²")
    axes.axhline(bottom, color="grey", linestyle=":", linewidth=0.8)


def bias_against_variance(rows: pd.DataFrame, task: str, axes: Axes) -> None:
    """Bias with its interval against variance, at the last checkpoint.

    An interval that reaches down to zero is drawn from the bottom: no bias was found.
    """
    base = at_own_settings(last(rows, task, GROUP))
    for _, row in base[base["variance"] > NOISE].iterrows():
        name, ends = str(row["estimator"]), [row["bias_low"], row["bias_high"]]
        axes.plot(
            [row["variance"]] * 2, [max(BOTTOM, end) for end in ends],
            color=colour(name), linewidth=1,
        )  # fmt: skip
        axes.plot(
            row["variance"], max(BOTTOM, row["bias"]), color=colour(name),
            marker=marker(name), linestyle="none", markersize=4, label=name,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="variance / ‖exact gradient‖²", title=task)
    axes.set_ylabel("‖bias‖ / ‖exact gradient‖")


def bias_along_settings(rows: pd.DataFrame, task: str, axes: Axes) -> None:
    """The same for biased estimators, of which a line joins the values of a setting that trades
    one for the other, such as a temperature: from its smallest value, a large marker, on."""
    here = last(rows, task, GROUP)
    here = here[(here["declared"] == "biased") & (here["variance"] > NOISE)]
    for knob in sorted({*here["knob"].dropna()} - {*COUNTS}):
        for estimator, own in swept(here, knob).groupby("estimator"):
            name = str(estimator)
            look: dict[str, Any] = {"color": colour(name), "marker": marker(name)}
            height = own["bias"].clip(lower=BOTTOM)
            axes.plot(own["variance"], height, markersize=3, linewidth=0.8, label=name, **look)
            axes.plot(own["variance"].iloc[0], height.iloc[0], **look)
    axes.set(xscale="log", yscale="log", xlabel="variance / ‖exact gradient‖²", title=task)
    axes.set_ylabel("‖bias‖ / ‖exact gradient‖")


def variance_along_training(rows: pd.DataFrame, task: str, axes: Axes) -> None:
    """Variance of a single estimate by training step."""
    for name, own in _along(rows, task):
        axes.plot(
            own["step"], own["variance"], color=colour(name), marker=marker(name), linewidth=0.8,
            markersize=3, label=name,
        )  # fmt: skip
    axes.set(xscale="symlog", yscale="log", xlabel="training step", title=task)
    axes.set_ylabel("variance / ‖exact gradient‖²")


def bias_along_training(rows: pd.DataFrame, task: str, axes: Axes) -> None:
    """Bias by training step: markers are full where one was found, open where it is a bound."""
    for name, own in _along(rows, task):
        found = own["bias_low"] > 0
        height = own["bias"].where(found, own["bias_high"])
        axes.plot(own["step"], height, color=colour(name), linewidth=0.5, label=name)
        for those, face in ((found, colour(name)), (~found, "white")):
            axes.plot(
                own["step"][those], height[those], color=colour(name), marker=marker(name),
                markerfacecolor=face, linestyle="none", markersize=4,
            )  # fmt: skip
    axes.set(xscale="symlog", yscale="log", xlabel="training step", title=task)
    axes.set_ylabel("‖bias‖ / ‖exact gradient‖, or its bound")


def _along(rows: pd.DataFrame, task: str) -> list[tuple[str, pd.DataFrame]]:
    """Each noisy estimator's rows, by step."""
    here = rows[(rows["task"] == task) & (rows["group"] == GROUP) & (rows["variance"] > NOISE)]
    curves = at_own_settings(here).sort_values("step").groupby("estimator")
    return [(str(name), own) for name, own in curves]


def effect_of(knob: str) -> Draw:
    """A figure of what a setting does to standard deviation and bias, or to the objective."""

    def draw(rows: pd.DataFrame, task: str, axes: Axes) -> None:
        for estimator, own in swept(last(rows, task, GROUP), knob).groupby("estimator"):
            name, noisy = str(estimator), (own["variance"] > NOISE).any()
            look: dict[str, Any] = {"color": colour(name), "marker": marker(name), "linewidth": 0.8}
            if not noisy:
                axes.plot(own["value"], own["distance"], linestyle=":", label=name, **look)
                continue
            axes.plot(own["value"], own["variance"] ** 0.5, linestyle="-", label=name, **look)
            found = own[own["bias_low"] > 0]
            axes.plot(
                found["value"], found["bias"], linestyle="--", markerfacecolor="white", **look
            )
        axes.set(xscale="log", yscale="log", xlabel=knob, title=task)
        axes.set_ylabel("standard deviation (solid), bias where\nfound (dashed), distance (dotted)")

    draw.__name__ = f"effect_of_{knob}"
    return draw
