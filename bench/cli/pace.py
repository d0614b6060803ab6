"""How long a grid has to go, from the cells that have ended and the shares of those that run.

Estimators differ by a factor of ten in time, so that each is judged by its own cells.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

Pair = tuple[str, str]
"""A task and an estimator."""


class Running(NamedTuple):
    """How far a cell is that runs."""

    pair: Pair
    share: float
    """Of it that is done, in [0, 1]."""
    rate: float | None
    """Share done in a second; None if that is not known yet."""


def time_left(
    waiting: Mapping[Pair, int],
    running: Sequence[Running],
    finished: Mapping[Pair, Sequence[float]],
    jobs: int,
) -> float | None:
    """Seconds until all is done; None as long as nothing is known.

    A cell is expected to take as long as those of its pair that have ended, or else as those that
    run seem to take, or as the mean of its task's other pairs, or of all pairs.

    Args:
        waiting: how many cells of each pair have not begun.
        running: the cells that run.
        finished: seconds of each cell that has ended.
        jobs: how many cells run at the same time.
    """
    known = {one.pair: 1 / one.rate for one in running if one.rate}
    known |= {pair: fmean(seconds) for pair, seconds in finished.items() if seconds}
    if not known:
        return None
    rest = [(1 - one.share) * _whole(one, known) for one in running]
    expected = {pair: _expected(pair, known) for pair, count in waiting.items() if count}
    longest = max([*rest, *expected.values()], default=0.0)
    work = sum(rest) + sum(waiting[pair] * seconds for pair, seconds in expected.items())
    return max(longest, work / jobs)


def _whole(one: Running, known: Mapping[Pair, float]) -> float:
    """Seconds that a running cell takes in all."""
    return 1 / one.rate if one.rate else _expected(one.pair, known)


def _expected(pair: Pair, known: Mapping[Pair, float]) -> float:
    """Seconds that a cell of a pair may take."""
    if pair in known:
        return known[pair]
    same_task = [seconds for (task, _), seconds in known.items() if task == pair[0]]
    return fmean(same_task or known.values())
