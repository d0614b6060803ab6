"""Statistics of few seeds, as functions of arrays. docs/REPORT.md says which is used where and why.

Scores are arrays with a row for each seed. Where there are too few seeds for a statement, or they
don't differ at all, the limits of an interval are NaN.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
"""Of every interval; 1 − LEVEL is the level of every test."""

LEAST_SEEDS = 3
"""Fewest for a t interval: with two, Student's factor is 12.7, and the interval says nothing."""

LEAST_SEEDS_IQM = 5
"""Fewest for a bootstrap interval, which covers the truth in 70% to 90% of cases with less."""

RESAMPLES = 4999


class Interval(NamedTuple):
    """An estimate with the limits of its interval, which are NaN where none can be stated."""

    estimate: float
    low: float
    high: float


def mean_interval(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Means with Student's t intervals, which take the values for normal.

    Args:
        values: (n, ...), a row for each seed.
    Returns:
        mean, low, high: (...); NaN limits with less than LEAST_SEEDS seeds or without spread.
    """
    n = len(values)
    mean = values.mean(axis=0)
    if n < LEAST_SEEDS:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    error = stats.sem(values, axis=0)
    half = np.where(_spread(values), stats.t.ppf((1 + LEVEL) / 2, n - 1) * error, np.nan)
    return mean, mean - half, mean + half


def interval_of(values: Floats) -> Interval:
    """The mean of (n,) values with its t interval."""
    mean, low, high = mean_interval(values)
    return Interval(float(mean), float(low), float(high))


def interquartile_mean(values: Floats) -> float:
    """Mean of the middle half of all values (Agarwal et al., NeurIPS 2021).

    The values at its two edges count in part, so that it is a half of any number of values: of
    three, the middle one and a quarter of each other.
    """
    return float(_middle_half(values.ravel()))


def iqm_interval(values: Floats, seed: int = 0) -> Interval:
    """Interquartile mean with a stratified bootstrap interval: seeds are redrawn task by task.

    The percentiles are those of Student's t with as many degrees of freedom as the strata have, and
    allow for the bootstrap's variance being (n − 1)/n of the sample's: the expanded percentile
    interval of Hesterberg (The American Statistician 69, 2015).

    Args:
        values: (n, T), normalised scores of n seeds on T tasks.
        seed: of the bootstrap; the same seed gives the same interval.
    """
    n, tasks = values.shape
    estimate = interquartile_mean(values)
    if n < LEAST_SEEDS_IQM or not _spread(values).any():
        return Interval(estimate, np.nan, np.nan)
    factor = stats.t.ppf((1 + LEVEL) / 2, tasks * (n - 1)) * np.sqrt(n / (n - 1))
    found = stats.bootstrap(
        tuple(values.T),
        lambda *strata, axis: _middle_half(np.concatenate(strata, axis)),  # the axis is the last
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,
        confidence_level=1 - 2 * stats.norm.sf(factor),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(estimate, float(found.low), float(found.high))


def sign_flip_p(differences: Floats, seed: int = 0) -> float:
    """Two-sided p of a mean of paired differences, by flipping their signs.

    Exact up to 13 seeds, by drawn flips beyond; it takes differences for symmetric about zero under
    the hypothesis, and nothing else.

    Args:
        differences: (n,), one for each seed.
        seed: of the drawn flips.
    """
    if len(differences) < 2 or not differences.any():
        return 1.0
    # Shares differ by whole examples: what is tied but for rounding has to be tied here too.
    unit = np.abs(differences).max() / 2**40

    def mean(values: Floats, axis: int) -> Floats:
        return np.asarray(np.rint(values.mean(axis=axis) / unit))

    return float(
        stats.permutation_test(
            (differences,), mean, permutation_type="samples", vectorized=True, batch=1000,
            rng=np.random.default_rng(seed),
        ).pvalue
    )  # fmt: skip


def seeds_needed(comparisons: int) -> int:
    """Fewest seeds with which one of so many comparisons can be significant at all after Holm.

    All n differences may point the same way by chance in 2 of 2^n sign flips.
    """
    return int(np.ceil(np.log2(2 * max(1, comparisons) / (1 - LEVEL))))


def holm(p: Floats) -> Floats:
    """p values adjusted for being many (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, stepped)
    return adjusted


def probability_of_improvement(ours: Floats, theirs: Floats) -> Interval:
    """P(a run of ours scores more than one of theirs), ties counting half.

    The estimate of Mann and Whitney over all pairs of runs, with the interval of Newcombe
    (Statistics in Medicine 25, 2006, method 5), which stays wide where one side always wins.

    Args:
        ours, theirs: (n,) and (m,) scores, more being better.
    """
    n, m = len(ours), len(theirs)
    wins = float(stats.mannwhitneyu(ours, theirs, method="asymptotic").statistic) / (n * m)
    if min(n, m) < LEAST_SEEDS:
        return Interval(wins, np.nan, np.nan)
    return Interval(wins, _lower(wins, n, m), 1 - _lower(1 - wins, m, n))


def mean_of_intervals(parts: Sequence[Interval]) -> Interval:
    """Mean of independent estimates, its limits from theirs (MOVER: Zou and Donner 2008)."""
    estimates, low, high = np.array(parts).T
    mean = estimates.mean()
    below = np.sqrt(((estimates - low) ** 2).sum()) / len(parts)
    above = np.sqrt(((high - estimates) ** 2).sum()) / len(parts)
    return Interval(float(mean), float(mean - below), float(mean + above))


def could_be_best(scores: Floats) -> npt.NDArray[np.bool_]:
    """Which of k could have the highest expected score: the others are ruled out.

    One is ruled out if its paired differences to the highest mean are below zero by a one-sided t
    test at (1 − LEVEL) / (k − 1). Whichever has the highest expected score is then kept with
    probability LEVEL or more (Gupta's subset selection, with Bonferroni's inequality). Differences
    without spread rule nothing out.

    Args:
        scores: (n, k), more being better, a row for each seed.
    """
    n, k = scores.shape
    if n < LEAST_SEEDS:
        return np.zeros(k, dtype=bool)
    best = int(scores.mean(axis=0).argmax())
    behind = scores[:, [best]] - scores
    with np.errstate(divide="ignore", invalid="ignore"):
        t = behind.mean(axis=0) / stats.sem(behind, axis=0)
    ruled_out = t > stats.t.isf((1 - LEVEL) / max(1, k - 1), n - 1)
    return ~(ruled_out & _spread(behind))


def ranks(scores: Floats) -> Floats:
    """Ranks within each row, 1 for the highest score, ties sharing the mean of theirs.

    Args:
        scores: (..., k), more being better; NaN (a run that did not end) comes last.
    """
    return stats.rankdata(-np.nan_to_num(scores, nan=-np.inf), axis=-1)


def _middle_half(values: Floats) -> Floats:
    """Means of the middle half of n values, (..., n) to (...)."""
    n = values.shape[-1]
    inside = np.diff(np.clip(np.arange(n + 1), n / 4, 3 * n / 4))
    return np.asarray(np.sort(values, axis=-1) @ (inside / (n / 2)))


def _spread(values: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(np.ptp(values, axis=0) > 1e-12 * np.abs(values).max(axis=0))


def _lower(wins: float, n: int, m: int) -> float:
    """Newcombe's lower limit: where the estimate is just within its standard error's reach."""
    if wins <= 0:
        return 0.0
    z, runs = stats.norm.ppf((1 + LEVEL) / 2), (n + m) / 2 - 1

    def excess(truth: float) -> float:
        spread = 1 + runs * (1 - truth) / (2 - truth) + runs * truth / (1 + truth)
        return wins - truth - z * float(np.sqrt(truth * (1 - truth) * spread / (n * m)))

    return float(optimize.brentq(excess, 0.0, min(wins, 1 - 1e-9)))
