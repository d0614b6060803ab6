"""Rows of gradient measurements, relative to the exact gradient and put together over seeds."""

import math

import numpy as np
import pandas as pd

from analysis.load import settings_of
from analysis.times import comparable

Z = 2.04
"""Half the width of a 95% interval in standard errors: Student's t for 31 degrees of freedom."""

NOISE = 1e-12
"""A relative variance below this is rounding: the estimate is a sum."""

GROUP = "encoder"
"""The group of parameters that figures and tables show, unless told otherwise."""

COUNTS = ("samples", "pairs")
"""Settings that are turned to make estimators comparable at equal decoder calls."""

WHAT = ["task", "group", "share", "estimator", "knob", "knob_value"]
"""What tells rows apart, but for the seed."""


def norm_interval(square: float, below: float, above: float) -> tuple[float, float, float]:
    """A norm with its 95% interval, from the estimate of its square.

    Args:
        below: how far the square may lie below its estimate.
        above: how far it may lie above it, or above zero where noise has brought the estimate below
            that: it is no reason for a tighter bound.
    """
    if math.isnan(square):
        return math.nan, math.nan, math.nan
    norm = math.sqrt(max(0.0, square))
    return norm, math.sqrt(max(0.0, square - below)), math.sqrt(max(0.0, square) + above)


def pooled(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each measurement that is ok, as the mean over seeds.

    Biases, their bounds and `distance` (between the objectives' gradients) are relative to the norm
    of the exact gradient, variances and mean squared errors to its square, each at its own seed.
    The square of the bias is the mean of squares, and its interval that of this mean: the seeds'
    distances to their own limits add up like standard errors (Zou and Donner, Statistics in
    Medicine 27, 2008). Where both the exact gradient and an estimate without noise are zero, all of
    these are. Seconds are of the cells that ran under the circumstances of most of their task's,
    NaN where none did.
    """
    table = table.assign(seconds=comparable(table, "seconds"))
    own = table[table["status"] == "ok"]
    norm = own["exact_norm"]

    def relative(values: pd.Series) -> pd.Series:
        return (values / norm**2).where((norm > 0) | (values != 0), 0.0)

    above = own["bias_high"] ** 2 - own["bias_square"].clip(lower=0)
    figures = own[[*WHAT, *_AS_THEY_ARE, "seconds"]].assign(
        square=relative(own["bias_square"]),
        below=relative(own["bias_square_error"]) ** 2,
        above=relative(above) ** 2,
        variance=relative(own["variance"]),
        variance_error=relative(own["variance_error"]) ** 2,
        cosine_error=own["cosine_error"] ** 2,
        distance=own["objective_distance"] / own["plain_norm"],
        flat=(norm == 0).astype(float),
    )
    groups = figures.groupby(WHAT, dropna=False)
    seeds = groups.size()
    known = groups.count().eq(seeds, axis="index").assign(seconds=True)
    rows = groups.mean().where(known)
    errors = ["below", "above", "variance_error", "cosine_error"]  # here the mean squares
    rows[errors] = rows[errors].div(seeds, axis="index") ** 0.5
    intervals = [
        norm_interval(square, Z * below, above)
        for square, below, above in rows[["square", "below", "above"]].to_numpy()
    ]
    rows[["bias", "bias_low", "bias_high"]] = np.array(intervals, dtype=float).reshape(-1, 3)
    told = own.groupby(WHAT, dropna=False)[["declared", "hyperparameters"]].first()
    variance = rows["variance"]
    rows = rows.assign(
        seeds=seeds,
        declared=told["declared"],
        mean_squared_error=rows["bias"] ** 2 + variance,
        signal_to_noise=(variance**-0.5).where(variance > NOISE, math.inf),
        settings=[settings_of(one).get("estimator", {}) for one in told["hyperparameters"]],
        flat=(rows["flat"] * seeds).round().astype(int),
    )
    return rows.reset_index()[[*WHAT, *_COLUMNS]]


_AS_THEY_ARE = ["step", "cosine", "decoder_calls", "slopes", "oracle_calls", "draws"]

_COLUMNS = (
    "step", "seeds", "declared", "bias", "bias_low", "bias_high", "variance", "variance_error",
    "cosine", "cosine_error", "mean_squared_error", "signal_to_noise", "decoder_calls", "slopes",
    "oracle_calls", "seconds", "distance", "draws", "settings", "flat",
)  # fmt: skip


def at_own_settings(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of estimators of which no setting was turned."""
    return rows[rows["knob"].isna()]


def last(rows: pd.DataFrame, task: str, group: str) -> pd.DataFrame:
    """One task's rows of a group at the last checkpoint."""
    rows = rows[(rows["task"] == task) & (rows["group"] == group)]
    return rows[rows["share"] == rows["share"].max()]


def swept(rows: pd.DataFrame, knob: str) -> pd.DataFrame:
    """The rows that show the effect of a setting, with its value as column `value`.

    That is where it was turned, and the same estimators where nothing was, if they have one there.
    """
    turned = rows[rows["knob"] == knob]
    base = at_own_settings(rows)
    base = base[base["estimator"].isin(turned["estimator"].unique())]
    values = [settings.get(knob, math.nan) for settings in base["settings"]]
    both = [turned.assign(value=turned["knob_value"]), base.assign(value=values)]
    return pd.concat(both).dropna(subset="value").sort_values(["estimator", "value"])


def resampled(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that show the effect of the number of samples, as `swept` gives them."""
    return pd.concat([swept(rows, count) for count in COUNTS])
