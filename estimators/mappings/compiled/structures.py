"""The active sets of structures as compiled loops, a row at a time, on the CPU.

They take the steps of `structures.SideBySide`, which runs all rows in whole-tensor operations. A
vertex is the list of its ones here: of a structure they are few.
"""

from typing import NamedTuple

import numpy as np

from estimators.mappings.kept import loops_of

_loops = loops_of(__file__)


class Sets(NamedTuple):
    """The sets of all rows; the vertices of a row come first in its slots."""

    coarse: np.ndarray
    """(B, D): the scores' leading digits, whose sums are exact."""
    fine: np.ndarray
    """(B, D): what is left of them."""
    first: np.ndarray
    """(B, D): the vertex that all others are taken relative to."""
    mean: np.ndarray
    """(B, D): μ."""
    level: np.ndarray
    """(B,): ⟨s, d⟩ − ⟨μ, v⟩ of the set's vertices, and the ones of the first."""
    exactly: np.ndarray
    """(B,): the oracle is asked without the nudge."""
    gap: np.ndarray
    """(B,): what is known of the duality gap before the last step, nudge and all."""
    counts: np.ndarray
    """(B,): vertices of a row."""
    names: np.ndarray
    """(B, M)."""
    ones: np.ndarray
    """(B, M, K), and D where there are fewer."""
    shared: np.ndarray
    """(B, M): ones that a vertex has in common with the first."""
    own: np.ndarray
    """(B,): ones of the first."""
    gains: np.ndarray
    """(B, M): c = ⟨s − v₀, d⟩."""
    inverse: np.ndarray
    """(B, M, M): R = Q⁻¹."""
    y: np.ndarray
    """(B, M): R1."""
    weights: np.ndarray
    """(B, M)."""


def start(coarse: np.ndarray, fine: np.ndarray, first: np.ndarray, slots: int) -> Sets:
    """Sets of the first vertex alone, which has the number of its row as name."""
    rows, size = first.shape
    width = max(1, most_ones(first))
    sets = Sets(
        coarse=coarse,
        fine=fine,
        first=first,
        mean=first.copy(),
        level=np.zeros(rows),
        exactly=np.zeros(rows, dtype=np.bool_),
        gap=np.zeros(rows),
        counts=np.ones(rows, dtype=np.int64),
        names=np.zeros((rows, slots), dtype=np.int64),
        ones=np.full((rows, slots, width), size, dtype=np.int64),
        shared=np.zeros((rows, slots)),
        own=np.zeros(rows),
        gains=np.zeros((rows, slots)),
        inverse=np.zeros((rows, slots, slots)),
        y=np.zeros((rows, slots)),
        weights=np.zeros((rows, slots)),
    )
    _start(sets)
    return sets


def with_room(sets: Sets, slots: int, width: int) -> Sets:
    """The same with so many slots, and so many ones of a vertex."""
    slots, width = slots - sets.names.shape[1], width - sets.ones.shape[2]
    along = (0, 0), (0, slots)
    size = sets.first.shape[1]
    return sets._replace(
        ones=np.pad(sets.ones, (*along, (0, width)), constant_values=size),
        inverse=np.pad(sets.inverse, (*along, (0, slots))),
        **{
            name: np.pad(getattr(sets, name), along)
            for name in ("names", "shared", "gains", "y", "weights")
        },
    )


@_loops
def most_ones(points: np.ndarray) -> int:
    """Of any row."""
    most = 0
    for row in range(len(points)):
        here = 0
        for j in range(points.shape[1]):
            here += points[row, j] != 0
        most = max(most, here)
    return most


@_loops
def _start(sets: Sets) -> None:
    for row in range(len(sets.first)):
        size = 0
        for j in range(sets.first.shape[1]):
            if sets.first[row, j] != 0:
                sets.ones[row, 0, size] = j
                size += 1
        sets.names[row, 0] = row
        sets.shared[row, 0] = sets.own[row] = size
        sets.inverse[row, 0, 0] = sets.y[row, 0] = sets.weights[row, 0] = 1.0


@_loops
def directions(sets: Sets, rows: np.ndarray, scores: np.ndarray, nudge: np.ndarray) -> np.ndarray:
    """What the oracle is to be asked for some rows: s − μ."""
    found = np.empty((len(rows), scores.shape[1]))
    for place in range(len(rows)):
        row = rows[place]
        for j in range(scores.shape[1]):
            found[place, j] = scores[row, j] - sets.mean[row, j]
            if not sets.exactly[row]:
                found[place, j] += nudge[j]
    return found


@_loops
def advance(
    sets: Sets,
    rows: np.ndarray,
    points: np.ndarray,
    names: np.ndarray,
    nudge: np.ndarray,
    within: np.ndarray,
    may_add: bool,
    dependent: float,
) -> np.ndarray:
    """A step of some rows with the vertices that the oracle has named; which of them go on.

    Args:
        within: (B,) the duality gap that is small enough.
        may_add: False to judge the rows alone.
        dependent: see `active_set.DEPENDENT`.
    """
    goes_on = np.ones(len(rows), dtype=np.bool_)
    for place in range(len(rows)):
        row, v = rows[place], points[place]
        coarse = fine = dot = slack = shared = 0.0
        size = 0
        count = sets.counts[row]
        here = sets.ones[row, count]
        for j in range(len(v)):
            if v[j] != 0:
                here[size] = j
                size += 1
                dot += sets.mean[row, j]
                slack += nudge[j]
                if sets.first[row, j] != 0:
                    shared += 1.0
                else:
                    coarse += sets.coarse[row, j]
                    fine += sets.fine[row, j]
            elif sets.first[row, j] != 0:
                coarse -= sets.coarse[row, j]
                fine -= sets.fine[row, j]
        for j in range(size, len(here)):
            here[j] = len(v)
        gain = coarse + (fine + (sets.own[row] - shared))  # ⟨v₀, d⟩ is a whole number
        gap = max(gain + shared - dot - sets.level[row], 0.0)
        if sets.exactly[row]:
            slack = 0.0
        sets.gap[row] = gap + slack
        if gap + slack <= within[row]:
            goes_on[place] = False
        elif not (may_add and gap > within[row]) or not _add(
            sets, row, v, shared, gain, names[place], dependent
        ):
            goes_on[place] = may_add and not sets.exactly[row]
            sets.exactly[row] = True
    return goes_on


@_loops
def _add(
    sets: Sets,
    row: int,
    v: np.ndarray,
    shared: float,
    gain: float,
    name: int,
    dependent: float,
) -> bool:
    """Add a vertex, whose ones are in the first free slot already; whether the row moved."""
    count = sets.counts[row]
    sets.names[row, count], sets.gains[row, count] = name, gain
    sets.shared[row, count], sets.weights[row, count] = shared, 0.0
    there = np.zeros(len(v) + 1)
    for j in range(len(v)):
        there[j] = v[j]
    if not _border(sets, row, count, there, dependent):
        return False
    sets.counts[row] = count + 1
    _reweigh(sets, row)
    stayed = False
    for i in range(sets.counts[row]):
        stayed |= sets.names[row, i] == name
    return stayed


@_loops
def _border(sets: Sets, row: int, count: int, there: np.ndarray, dependent: float) -> bool:
    """Put the vertex of a slot into the R and y of those before it, if it does not depend on them.

    Args:
        there: (D + 1,) its indicators, and a zero.
    """
    r, y, shared, own = sets.inverse[row], sets.y[row], sets.shared[row], sets.own[row]
    ones = sets.ones[row]
    q, w = np.zeros(count + 1), np.zeros(count + 1)
    for i in range(count + 1):
        common = 0.0
        for place in range(ones.shape[1]):
            common += there[ones[i, place]]
        q[i] = common - shared[i] - shared[count] + own + 1
    for i in range(count):
        for j in range(count):
            w[j] += q[i] * r[i, j]
    schur, step = q[count], 1.0
    for i in range(count):
        schur -= q[i] * w[i]
        step -= q[i] * y[i]
    if schur <= dependent * q[count]:
        return False
    w[count] = -1.0
    y[count] = 0.0
    for i in range(count + 1):
        r[i, count] = r[count, i] = 0.0
    for i in range(count + 1):
        share = w[i] / schur
        y[i] -= step * share
        for j in range(count + 1):
            r[i, j] += share * w[j]
    return True


@_loops
def _reweigh(sets: Sets, row: int) -> None:
    """Move to the best affine combination, dropping vertices on the way."""
    p = sets.weights[row]
    while True:
        best = _best(sets, row)
        share, leaves = np.inf, len(best)
        for i in range(len(best)):
            if best[i] < 0:
                reach = p[i] / (p[i] - best[i])
                if reach < share:
                    share, leaves = reach, i
        if leaves == len(best):
            for i in range(len(best)):
                p[i] = best[i]
            return
        for i in range(len(best)):
            p[i] = max(p[i] + min(share, 1.0) * (best[i] - p[i]), 0.0)
        _leave(sets, row, leaves)


@_loops
def _best(sets: Sets, row: int) -> np.ndarray:
    """The best affine combination; mean and level become its.

    By iterative refinement, which needs no R but a near one: what it loses in many steps matters
    only where that goes slowly, and R is then made anew.
    """
    rounding, last = 2.0**-51 * (sets.own[row] + 1), np.inf
    best = _solve(sets, row, sets.gains[row], 1.0)
    for _ in range(6):
        unequal = _locate(sets, row, best)
        now = 0.0
        for i in range(len(best)):
            now = max(now, abs(unequal[i]))
        if now <= rounding:
            break
        if now > last / 4:
            if now <= 64 * rounding:
                break
            _restore(sets, row)
        change = _solve(sets, row, unequal, 0.0)
        for i in range(len(best)):
            best[i] += change[i]
        last = now
    return best


@_loops
def _solve(sets: Sets, row: int, c: np.ndarray, total: float) -> np.ndarray:
    """Rc + λy, with λ such that it sums to the total."""
    count, r, y = sets.counts[row], sets.inverse[row], sets.y[row]
    found = np.zeros(count)
    for i in range(count):
        for j in range(count):
            found[j] += c[i] * r[i, j]
    missing, of_y = total, 0.0
    for i in range(count):
        missing -= found[i]
        of_y += y[i]
    for i in range(count):
        found[i] += missing / of_y * y[i]
    return found


@_loops
def _locate(sets: Sets, row: int, p: np.ndarray) -> np.ndarray:
    """Set mean and level of weights; how far from it each vertex is: of the best, nowhere."""
    mean, ones, size = sets.mean[row], sets.ones[row], sets.mean.shape[1]
    for j in range(size):
        mean[j] = 0.0
    for i in range(len(p)):
        for place in range(ones.shape[1]):
            if ones[i, place] < size:
                mean[ones[i, place]] += p[i]
    unequal, level = np.empty(len(p)), 0.0
    for i in range(len(p)):
        dot = 0.0
        for place in range(ones.shape[1]):
            if ones[i, place] < size:
                dot += mean[ones[i, place]]
        unequal[i] = sets.gains[row, i] + sets.shared[row, i] - dot
        level += p[i] * unequal[i]
    for i in range(len(p)):
        unequal[i] -= level
    sets.level[row] = level
    return unequal


@_loops
def _restore(sets: Sets, row: int) -> None:
    """R and y from the vertices."""
    there, ones = np.zeros(sets.mean.shape[1] + 1), sets.ones[row]
    for i in range(sets.counts[row]):
        for place in range(ones.shape[1]):
            there[ones[i, place]] = 1.0
        there[-1] = 0.0
        _border(sets, row, i, there, -np.inf)
        for place in range(ones.shape[1]):
            there[ones[i, place]] = 0.0


@_loops
def _leave(sets: Sets, row: int, place: int) -> None:
    """Take a vertex out, and put the last one in its place."""
    r, y, ones, last = sets.inverse[row], sets.y[row], sets.ones[row], sets.counts[row] - 1
    pivot = r[place, place]
    column = np.empty(last + 1)
    for i in range(last + 1):
        column[i] = r[i, place]
    ratio = y[place] / pivot
    for i in range(last + 1):
        y[i] -= column[i] * ratio
        share = column[i] / pivot
        for j in range(last + 1):
            r[i, j] -= share * column[j]
    for i in range(last + 1):
        r[place, i] = r[last, i]
    for i in range(last + 1):
        r[i, place] = r[i, last]
    for i in range(last + 1):
        r[last, i] = r[i, last] = 0.0
    for i in range(ones.shape[1]):
        ones[place, i], ones[last, i] = ones[last, i], sets.mean.shape[1]
    y[place], y[last] = y[last], 0.0
    sets.weights[row, place], sets.weights[row, last] = sets.weights[row, last], 0.0
    sets.gains[row, place], sets.gains[row, last] = sets.gains[row, last], 0.0
    sets.names[row, place], sets.names[row, last] = sets.names[row, last], 0
    sets.shared[row, place], sets.shared[row, last] = sets.shared[row, last], 0.0
    sets.counts[row] = last


@_loops
def finish(sets: Sets) -> None:
    """Take out the vertices that have no weight."""
    for row in range(len(sets.counts)):
        for place in range(sets.counts[row] - 1, -1, -1):
            if sets.weights[row, place] <= 0:
                _leave(sets, row, place)
