"""Rows of gradient measurements, relative to the exact gradient and put together over seeds."""

import math
from typing import Any

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
    rows = [
        dict(zip(WHAT, what, strict=True)) | _mean(own)
        for what, own in table[table["status"] == "ok"].groupby(WHAT, dropna=False)
    ]
    return pd.DataFrame(rows, columns=[*WHAT, *_COLUMNS])


_COLUMNS = (
    "step", "seeds", "declared", "bias", "bias_low", "bias_high", "variance", "variance_error",
    "cosine", "cosine_error", "mean_squared_error", "signal_to_noise", "decoder_calls", "slopes",
    "oracle_calls", "seconds", "distance", "draws", "settings", "flat",
)  # fmt: skip


def _mean(own: pd.DataFrame) -> dict[str, Any]:
    """The figures of one measurement, from its rows of several seeds."""
    norm = own["exact_norm"]

    def relative(values: pd.Series) -> pd.Series:
        return (values / norm**2).where((norm > 0) | (values != 0), 0.0)

    def mean(values: pd.Series) -> float:
        return float(values.mean(skipna=False))

    def error(values: pd.Series) -> float:
        return math.sqrt(float((values**2).sum(skipna=False))) / len(values)

    above = own["bias_high"] ** 2 - own["bias_square"].clip(lower=0)
    bias, low, high = norm_interval(
        mean(relative(own["bias_square"])),
        below=Z * error(relative(own["bias_square_error"])),
        above=error(relative(above)),
    )
    variance = mean(relative(own["variance"]))
    return {
        "step": mean(own["step"]),
        "seeds": len(own),
        "declared": own["declared"].iloc[0],
        "bias": bias,
        "bias_low": low,
        "bias_high": high,
        "variance": variance,
        "variance_error": error(relative(own["variance_error"])),
        "cosine": mean(own["cosine"]),
        "cosine_error": error(own["cosine_error"]),
        "mean_squared_error": bias**2 + variance,
        "signal_to_noise": 1 / math.sqrt(variance) if variance > NOISE else math.inf,
        "decoder_calls": mean(own["decoder_calls"]),
        "slopes": mean(own["slopes"]),
        "oracle_calls": mean(own["oracle_calls"]),
        "seconds": float(own["seconds"].mean()),
        "distance": mean(own["objective_distance"] / own["plain_norm"]),
        "draws": mean(own["draws"]),
        "settings": settings_of(own["hyperparameters"].iloc[0]).get("estimator", {}),
        "flat": int((norm == 0).sum()),
    }


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
