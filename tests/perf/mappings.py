"""Times of SparseMAP for bits, of the best chains, with lp-sparsemap in the same run, and of sums
over trees and the best of them, with networkx in the same run: `make bench-mappings`.

Scores are drawn from N(0.2, s²), in float32; forward and backward are timed apart: the median of
interleaved repetitions, each the median of as many calls as fill some milliseconds (the first few
wait for memory from the system). lp-sparsemap is timed inside its worker, without the transport.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import networkx
import torch
from rich.console import Console
from rich.table import Table

from bench.cells.memory import keep_memory
from estimators.mappings import BitSolver, best_chains, lp_sparsemap, sparsemap_bits
from estimators.mappings.trees import best_trees, log_partition, tree_marginals
from estimators.sampler import Sampler
from estimators.spaces import Trees

ROWS = 64
SIZES = (32, 128)
SPREADS = (0.1, 1.0, 3.0)
CHAINS, LENGTH, STATES = 256, 32, 8
REPETITIONS = 9
AT_LEAST = 0.05
"""Seconds of a repetition."""


class Timing(NamedTuple):
    """One solve of a batch."""

    forward: float
    """Seconds."""
    backward: float
    support: float
    """Vertices a row, mean."""
    residual: float
    """Largest ‖expected vertex − marginals‖₂."""


def ours(scores: torch.Tensor, solver: BitSolver, budget: int | None) -> Timing:
    """Time a solver of this project."""
    scores = scores.clone().requires_grad_()
    times: list[tuple[float, float]] = []
    begin = time.perf_counter()
    while not times or time.perf_counter() - begin < AT_LEAST:
        start = time.perf_counter()
        solution = sparsemap_bits(scores, budget, solver=solver)
        middle = time.perf_counter()
        solution.probabilities.backward(torch.ones_like(solution.probabilities))
        times.append((middle - start, time.perf_counter() - middle))
    forward, backward = map(statistics.median, zip(*times, strict=True))
    support = (solution.probabilities > 0).sum(dim=1).double().mean()
    return Timing(forward, backward, float(support), float(solution.residual.max()))


def reference(scores: torch.Tensor) -> Timing:
    """Time lp-sparsemap on the problem without a budget."""
    answer = lp_sparsemap.solve(scores.double().numpy())
    forward, both = answer["seconds"]
    mean = torch.einsum(
        "bm,bmd->bd", *(torch.from_numpy(answer[name]) for name in ("probabilities", "vertices"))
    )
    residual = (mean - ((1 + scores.double()) / 2).clamp(0, 1)).norm(dim=1).max()
    support = (answer["probabilities"] > 0).sum(axis=1).mean()
    return Timing(forward, both - forward, float(support), float(residual))


def median(timings: list[Timing]) -> Timing:
    middle = len(timings) // 2
    return Timing(*(sorted(column)[middle] for column in zip(*timings, strict=True)))


def measurements() -> Iterator[tuple[str, Timing]]:
    """Every line of the table: what was solved, and the median timing."""
    for size in SIZES:
        for spread in SPREADS:
            scores = 0.2 + spread * torch.randn(
                ROWS, size, generator=torch.Generator().manual_seed(0)
            )
            for budget in (None, size // 2):
                solvers: list[BitSolver] = ["closed-form", "active-set"]
                seen: dict[str, list[Timing]] = {name: [] for name in solvers}
                for repetition in range(REPETITIONS + 1):
                    for name in solvers:
                        timing = ours(scores, name, budget)
                        if repetition:  # the first warms up
                            seen[name].append(timing)
                if budget is None and lp_sparsemap.available():
                    seen["lp-sparsemap"] = [reference(scores) for _ in range(3)]
                for name, timings in seen.items():
                    yield f"{ROWS} {size} {spread} {budget or '-'} {name}", median(timings)
    scores = 0.2 + torch.randn(4096, 128, generator=torch.Generator().manual_seed(0))
    for budget in (None, 64):
        timings = [ours(scores, "closed-form", budget) for _ in range(3)]
        yield f"4096 128 1.0 {budget or '-'} closed-form", median(timings)
    for rows in (16, 256, 1024):
        timings = [ours(scores[:rows], "active-set", None) for _ in range(3)]
        yield f"{rows} 128 1.0 - active-set", median(timings)


def chains() -> Iterator[tuple[str, float]]:
    """What found the best chains, row by row in lp-sparsemap, and the least seconds it took."""
    size = (LENGTH + (LENGTH - 1) * STATES) * STATES
    scores = torch.randn(CHAINS, size, generator=torch.Generator().manual_seed(0))
    seen: dict[str, list[float]] = {"compiled loops": []}
    best_chains(scores, LENGTH, STATES)  # compiles
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        best_chains(scores, LENGTH, STATES)
        seen["compiled loops"].append(time.perf_counter() - start)
        if lp_sparsemap.available():
            answer = lp_sparsemap.best_chains(scores.double().numpy(), LENGTH, STATES)
            seen.setdefault("lp-sparsemap", []).append(float(answer["seconds"][0]))
    for name, seconds in seen.items():
        yield name, min(seconds)


def best_of_networkx(scores: torch.Tensor) -> None:
    """A row at a time; with an artificial root, and no bound on how many words it has."""
    for row in scores.tolist():
        arcs = networkx.DiGraph()
        for word, heads in enumerate(row):
            for head, score in enumerate(heads):
                arcs.add_edge(-1 if head == word else head, word, weight=score)
        networkx.maximum_spanning_arborescence(arcs)


def of_trees(words: int, rows: int) -> dict[str, float]:
    """Least seconds of each, over interleaved repetitions; networkx by four rows, once."""
    scores = torch.randn(
        rows, words, words, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).requires_grad_()
    tasks: dict[str, Callable[[], object]] = {
        "best": lambda: best_trees(scores),
        "log-partition": lambda: log_partition(scores),
        "marginals": lambda: tree_marginals(scores),
        "marginals and gradient": lambda: tree_marginals(scores).square().sum().backward(),
        "four samples": lambda: Trees(words).plain(scores).sample(Sampler(), 4),
    }
    seen: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(REPETITIONS + 1):  # the first compiles
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            seen[name].append(time.perf_counter() - start)
    start = time.perf_counter()
    best_of_networkx(scores[:4].detach())
    each = (time.perf_counter() - start) / 4
    return {name: min(times) for name, times in seen.items()} | {"best, networkx": each * rows}


def tree_table() -> Table:
    """Milliseconds of each, by size."""
    table = Table("rows", "words", "trees", "ms")
    for words, rows in ((20, 32), (32, 256), (100, 16)):
        for name, seconds in of_trees(words, rows).items():
            table.add_row(str(rows), str(words), name, f"{1e3 * seconds:.2f}")
    return table


def main() -> None:
    keep_memory()  # as the harness does for its cells
    table = Table(
        "rows", "D", "s", "budget", "solver", "forward ms", "backward ms", "support", "residual"
    )
    for what, timing in measurements():
        milliseconds = (f"{1e3 * timing.forward:.2f}", f"{1e3 * timing.backward:.2f}")
        table.add_row(
            *what.split(), *milliseconds, f"{timing.support:.1f}", f"{timing.residual:.1e}"
        )
    console = Console(width=110)
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    console.print(table)
    for name, seconds in chains():
        what = f"the best of {CHAINS} chains, T = {LENGTH}, S = {STATES}"
        console.print(f"{what}, {name}: {1e3 * seconds:.2f} ms")
    console.print(tree_table())


if __name__ == "__main__":
    main()
