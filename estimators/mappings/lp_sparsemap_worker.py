"""Solves SparseMAP problems with lp-sparsemap; needs it and numpy, Python 3.8 or newer.

Run as a script it reads an .npz from standard input, with `scores` (B, D) and `budget` (−1 for
none), and writes one to standard output: `marginals` (B, D) and `seconds` of the solver alone.
Without a budget the problem is the published one, and there are also `vertices` (B, M, D),
`probabilities` (B, M), and a second figure in `seconds`, with one vector-Jacobian product a row.
With `length` and `states` in the budget's place it finds the best chain alone, whose `marginals`
are the indicators (B, T S) of its states.
"""

import io
import sys
import time
from typing import Dict  # noqa: UP035 - old interpreters run this file

import numpy as np

Arrays = Dict[str, np.ndarray]  # noqa: UP006

MAX_ITERATIONS = 3000


def solve(scores: np.ndarray, budget: int) -> Arrays:
    """Reference solutions of a batch, as a dict of arrays."""
    return _bits(scores) if budget < 0 else _budget(scores, budget)


def _bits(scores: np.ndarray) -> Arrays:
    """A chain of two-state variables without transition scores: the published problem."""
    from lpsmap.ad3ext.sequence import PFactorSequence
    from lpsmap.ad3qp.factor_graph import PFactorGraph

    size = scores.shape[1]
    no_transitions = np.zeros(4 * (size - 1))  # for each link, two states at either end
    marginals, supports, weights = [], [], []
    forward = backward = 0.0
    for row in scores:
        graph = PFactorGraph()
        variables = [graph.create_binary_variable() for _ in range(2 * size)]
        factor = PFactorSequence()
        factor.initialize([2] * size)
        graph.declare_factor(factor, variables, owned_by_graph=True)
        unary = np.stack([np.zeros(size), row], axis=1).ravel()
        start = time.perf_counter()
        posterior, _ = factor.solve_qp(unary, no_transitions, max_iter=MAX_ITERATIONS)
        forward += time.perf_counter() - start
        vertices, probabilities = factor.get_sparse_solution()
        start = time.perf_counter()
        out = np.zeros(2 * size, dtype=np.float32)
        additional = np.zeros(len(no_transitions), dtype=np.float32)
        factor.dist_jacobian_vec(np.ones(len(probabilities), dtype=np.float32), out, additional)
        backward += time.perf_counter() - start
        marginals.append(np.array(posterior).reshape(size, 2)[:, 1])
        supports.append(np.array(vertices, dtype=float))
        weights.append(np.array(probabilities, dtype=float))
    most = max(map(len, weights))
    return {
        "marginals": np.stack(marginals),
        "vertices": np.stack([np.pad(v, ((0, most - len(v)), (0, 0))) for v in supports]),
        "probabilities": np.stack([np.pad(p, (0, most - len(p))) for p in weights]),
        "seconds": np.array([forward, forward + backward]),
    }


def _budget(scores: np.ndarray, budget: int) -> Arrays:
    """One variable a bit, at most `budget` on."""
    from lpsmap import Budget, FactorGraph

    marginals = []
    start = time.perf_counter()
    for row in scores:
        graph = FactorGraph()
        bits = graph.variable_from(row)
        graph.add(Budget(bits, budget))
        graph.solve()
        marginals.append(np.array(bits.value))
    return {"marginals": np.stack(marginals), "seconds": np.array([time.perf_counter() - start])}


def best_chains(scores: np.ndarray, length: int, states: int) -> Arrays:
    """The best chain of each row, found row by row."""
    from lpsmap.ad3ext.sequence import PFactorSequence
    from lpsmap.ad3qp.factor_graph import PFactorGraph

    marginals = []
    seconds = 0.0
    for row in scores:
        graph = PFactorGraph()
        variables = [graph.create_binary_variable() for _ in range(length * states)]
        factor = PFactorSequence()
        factor.initialize([states] * length)
        graph.declare_factor(factor, variables, owned_by_graph=True)
        unary, transitions = np.split(row, [length * states])
        start = time.perf_counter()
        _, posterior, _ = factor.solve_map(unary, transitions)
        seconds += time.perf_counter() - start
        marginals.append(np.array(posterior))
    return {"marginals": np.stack(marginals), "seconds": np.array([seconds])}


def main() -> None:
    problem = np.load(io.BytesIO(sys.stdin.buffer.read()))
    buffer = io.BytesIO()
    if "length" in problem:
        shape = int(problem["length"]), int(problem["states"])
        answer = best_chains(problem["scores"], *shape)
    else:
        answer = solve(problem["scores"], int(problem["budget"]))
    np.savez(buffer, **answer)  # type: ignore[arg-type]
    sys.stdout.buffer.write(buffer.getvalue())


if __name__ == "__main__":
    main()
