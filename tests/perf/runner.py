"""What the runner itself costs: milliseconds a cell and memory, for a grid whose cells do nothing.

`make bench-runner`: every cell stores three rows without training. Prints the time of a run and of
the same command again, which finds all stored, and the most memory that the process had held after
some numbers of cells.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.cells.cell import Planned, plan
from bench.cells.training import Row
from bench.grid import executors, runner
from bench.grid.grid import run_cells
from bench.grid.runner import Execution, Outcome
from bench.profiles.profile import load_profile
from estimators.registry import all_estimators
from tasks.registry import all_tasks

MARKS = (100, 500, 1000, 2000)
"""Numbers of cells after which memory is looked at."""


def nothing(*arguments: object, **named: object) -> Iterator[Row]:
    """The rows of a cell that isn't trained."""
    for step in range(3):
        yield {"step": step, "epoch": float(step), "split": "test", "loss": 1.0, "accuracy": 0.5}


def run_nothing(todo: executors.Todo, execution: Execution, beside: int) -> Outcome | None:
    """Run a cell in a worker process, which knows nothing of what this one has changed."""
    runner.train_cell = nothing  # type: ignore[assignment]
    return executors.run_claimed(todo, execution, beside)


def seconds_of(planned: list[Planned], execution: Execution, memory: dict[int, float]) -> float:
    """Run a grid; `memory` gets the MiB after some numbers of cells."""
    count = 0

    def done(outcome: Outcome) -> None:
        nonlocal count
        assert outcome.status in {"ok", "stored"}, outcome
        count += 1
        if count in MARKS:
            memory[count] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    start = time.perf_counter()
    run_cells(planned, execution, done)
    return time.perf_counter() - start


def measured(planned: list[Planned], jobs: int, marks: list[int]) -> list[str]:
    """A row of the table, after a small grid that starts the worker processes."""
    with tempfile.TemporaryDirectory() as folder:
        execution = Execution(Path(folder), "quick", None, "cpu", jobs, "bench-runner")
        seconds_of(planned[: 10 * jobs], replace(execution, results=Path(folder) / "warm"), {})
        memory: dict[int, float] = {}
        fresh = seconds_of(planned, execution, memory)
        stored = seconds_of(planned, execution, {})
    times = [f"{1000 * seconds / len(planned):.2f}" for seconds in (fresh, stored)]
    return [str(jobs), *times, *(f"{memory[mark]:.0f}" for mark in marks)]


def main() -> None:
    """Print a table with a row for each number of jobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    runner.train_cell = nothing  # type: ignore[assignment]
    executors._run_in_worker = run_nothing  # type: ignore[assignment]
    profile = load_profile("quick", [*all_tasks()], [*all_estimators()])
    first = plan(["ssvae"], ["none"], 1, profile)[0].cell
    planned = [Planned(replace(first, seed=seed), None) for seed in range(options.cells)]
    marks = [mark for mark in MARKS if mark <= options.cells]
    heads = ["jobs", "ms a cell", "ms a stored cell", *(f"MiB at {mark}" for mark in marks)]
    table = Table(*heads, title=f"{options.cells} cells that do nothing")
    for jobs in options.jobs:
        table.add_row(*measured(planned, jobs, marks))
    Console().print(table)


if __name__ == "__main__":
    main()
