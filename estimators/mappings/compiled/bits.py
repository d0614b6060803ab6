"""The active-set method for bits as compiled loops, a row at a time, on the CPU.

It takes the steps of `active_set.Solver`, which runs all rows side by side in whole-tensor
operations: there some forty calls a step cost more than what they compute.
"""

from typing import NamedTuple

import numpy as np

from estimators.mappings.active_set import DEPENDENT
from estimators.mappings.kept import loops_of

_SLOTS = 64
"""Vertices of a row that there is room for at first."""

_loops = loops_of(__file__)


class ActiveSets(NamedTuple):
    """The final set of every row; what is beyond a row's count is zero."""

    vertices: np.ndarray
    """(B, M, D), zeros and ones."""
    weights: np.ndarray
    """(B, M)."""
    inverse: np.ndarray
    """(B, M, M): R = Q⁻¹."""
    y: np.ndarray
    """(B, M): R1."""


def active_sets(
    marginals: np.ndarray, budget: int, binds: np.ndarray, tolerance: float, max_iterations: int
) -> ActiveSets:
    """Sets of vertices whose mean is within a tolerance of the marginals, where these allow it.

    Args:
        marginals: (B, D), float64, in [0, 1].
        budget: most bits on in a vertex; D for no bound.
        binds: (B,) bool: the marginals sum to the budget, and so must every vertex.
        tolerance: on the distance of the mean.
        max_iterations: of every row.
    """
    rows, size = marginals.shape
    slots = min(size + 1, _SLOTS)
    while True:
        vertices = np.zeros((rows, slots, size), dtype=np.int8)
        inverse = np.zeros((rows, slots, slots))
        weights, y = np.zeros((rows, slots)), np.zeros((rows, slots))
        # Passed on, as compiled code keeps what it finds in other files, whatever they become.
        counts = _solve(
            marginals, budget, binds, tolerance, max_iterations, DEPENDENT, vertices, inverse,
            weights, y,
        )  # fmt: skip
        if slots > size or counts.max(initial=1) <= slots:
            break
        slots = min(size + 1, 2 * slots)
    most = counts.max(initial=1)
    found = vertices[:, :most].astype(marginals.dtype)
    return ActiveSets(found, weights[:, :most], inverse[:, :most, :most], y[:, :most])


@_loops
def _solve(
    marginals: np.ndarray,
    budget: int,
    binds: np.ndarray,
    tolerance: float,
    max_iterations: int,
    dependent: float,
    vertices: np.ndarray,
    inverse: np.ndarray,
    weights: np.ndarray,
    y: np.ndarray,
) -> np.ndarray:
    """Fill in V, R, p and y of every row; how many vertices each has, or one too many."""
    counts = np.ones(len(marginals), dtype=np.int64)
    u = np.zeros(vertices.shape[1:])  # V − μ of one row at a time, which stays in the cache
    for row in range(len(marginals)):
        target = marginals[row]
        nearer = target - 0.5
        r, p, v = inverse[row], weights[row], y[row]
        u[0] = _best(nearer, target, budget, binds[row]) - target
        r[0, 0] = v[0] = 1 / (u[0] @ u[0] + 1)
        p[0] = 1.0
        count = 1
        for _ in range(max_iterations):
            direction = p[:count] @ u[:count]
            if direction @ direction <= tolerance * tolerance:
                break
            unit = max(np.abs(direction).max() * 2.0**-26, 1e-300)
            wish = nearer - np.rint(direction / unit)
            new = _best(wish, target, budget, binds[row]) - target
            q = u[:count] @ new + 1
            w = np.zeros(count)
            for i in range(count):
                w += q[i] * r[i, :count]
            norm = new @ new + 1
            schur = norm - q @ w
            if schur <= dependent * norm:
                break
            if count == len(u):
                count += 1
                break
            step = (1 - q @ v[:count]) / schur
            u[count] = new
            for i in range(count):
                for j in range(count):
                    r[i, j] += w[i] * w[j] / schur
                r[i, count] = r[count, i] = -w[i] / schur
                v[i] -= step * w[i]
            r[count, count] = 1 / schur
            v[count] = step
            count = _reweigh(u, r, p, v, count + 1)
        if count <= len(u):
            for place in range(count - 1, -1, -1):
                if p[place] <= 0:
                    count = _drop(u, r, p, v, count, place)
        counts[row] = count
        for i in range(min(count, len(u))):
            for bit in range(len(target)):
                vertices[row, i, bit] = np.int8(np.rint(u[i, bit] + target[bit]))
    return counts


@_loops
def _best(wish: np.ndarray, target: np.ndarray, budget: int, binds: bool) -> np.ndarray:
    """The vertex of highest score on the face that the marginals lie in."""
    size = len(wish)
    vertex = np.zeros(size)
    if budget >= size:
        for bit in range(size):
            vertex[bit] = 1.0 if wish[bit] > 0 else 0.0
        return vertex
    score = np.where(target <= 0, -np.inf, np.where(target >= 1, np.inf, wish))
    ranked = np.argsort(-score, kind="mergesort")
    for bit in ranked[:budget]:
        vertex[bit] = 1.0 if score[bit] > 0 or (binds and score[bit] > -np.inf) else 0.0
    return vertex


@_loops
def _reweigh(u: np.ndarray, r: np.ndarray, p: np.ndarray, y: np.ndarray, count: int) -> int:
    """Move to the best affine combination, dropping vertices on the way; how many are left."""
    while True:
        best = y[:count] / y[:count].sum()
        share, first = np.inf, -1
        for i in range(count):
            if best[i] < 0:
                reach = p[i] / (p[i] - best[i])
                if reach < share:
                    share, first = reach, i
        if first < 0:
            p[:count] = best
            return count
        for i in range(count):
            p[i] = max(p[i] + min(share, 1.0) * (best[i] - p[i]), 0.0)
        count = _drop(u, r, p, y, count, first)


@_loops
def _drop(
    u: np.ndarray, r: np.ndarray, p: np.ndarray, y: np.ndarray, count: int, place: int
) -> int:
    """Take a vertex out, and put the last one in its place; how many are left."""
    last = count - 1
    column = r[:count, place].copy()
    pivot = column[place]
    ratio = y[place] / pivot
    for i in range(count):
        y[i] -= column[i] * ratio
        for j in range(count):
            r[i, j] -= column[i] * column[j] / pivot
    u[place], p[place], y[place] = u[last], p[last], y[last]
    r[place, :count] = r[last, :count]
    r[:count, place] = r[:count, last]
    u[last], p[last], y[last] = 0.0, 0.0, 0.0
    r[last, :count] = 0.0
    r[:count, last] = 0.0
    return last
