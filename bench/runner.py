"""Runs the cells of a grid, several at a time, and stores an outcome for each."""

import resource
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed

from bench.cells import Cell, Planned
from bench.provenance import device_name, provenance
from bench.store import SCHEMA_VERSION, hyperparameters, stored_status, write_cell
from bench.training import DivergedError, train_cell

FINAL = frozenset({"ok", "skipped"})
"""Outcomes that stand; a cell with any other is run again."""


class WorkerLostError(Exception):
    """A worker process died; the message says what to do."""


@dataclass(frozen=True)
class Execution:
    """How to run cells. Nothing here changes their numbers, but for the device."""

    results: Path
    profile: str
    data_dir: Path | None
    device: str
    threads: int
    jobs: int
    command: str


@dataclass(frozen=True)
class Outcome:
    """What became of a cell."""

    cell: Cell
    status: str
    reason: str | None


def run_cells(
    planned: Sequence[Planned],
    execution: Execution,
    done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run what is not stored yet and return an outcome for every cell, in no fixed order.

    Args:
        planned: the cells of the grid.
        execution: how to run them.
        done: called with each outcome as it comes.
    """
    outcomes: list[Outcome] = []

    def finish(outcome: Outcome) -> None:
        outcomes.append(outcome)
        done(outcome)

    todo = []
    for item in planned:
        if stored_status(execution.results, item.cell) in FINAL:
            finish(Outcome(item.cell, "stored", None))
        elif item.skip is not None:
            outcome = Outcome(item.cell, "skipped", item.skip)
            _store(outcome, [{}], execution, beside=0, wall_seconds=0.0, started=_now())
            finish(outcome)
        else:
            todo.append(item.cell)
    beside = min(execution.jobs, len(todo)) - 1
    pool = Parallel(n_jobs=execution.jobs, return_as="generator_unordered", batch_size=1)
    try:
        for outcome in pool(delayed(run_cell)(cell, execution, beside) for cell in todo):
            finish(outcome)
    except BrokenProcessPool as error:
        raise WorkerLostError(
            "a worker process was killed, for want of memory perhaps; what was finished is "
            "stored: run the same command to go on, with fewer --jobs if it happens again"
        ) from error
    return outcomes


def run_cell(cell: Cell, execution: Execution, beside: int) -> Outcome:
    """Train and store one cell; whatever goes wrong becomes its outcome.

    Args:
        beside: how many other cells run at the same time.
    """
    torch.set_num_threads(execution.threads)
    started, start = _now(), time.perf_counter()
    rows: list[dict[str, Any]] = [{}]
    try:
        rows = train_cell(cell, execution.data_dir, execution.device, _reporter(cell, execution))
        outcome = Outcome(cell, "ok", None)
    except DivergedError as error:
        outcome = Outcome(cell, "diverged", str(error))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        outcome = Outcome(cell, "failed", f"{type(error).__name__}: {error} ({where})")
    finally:
        progress_file(execution.results, cell).unlink(missing_ok=True)
    _store(outcome, rows, execution, beside, time.perf_counter() - start, started)
    return outcome


def progress_file(results: Path, cell: Cell) -> Path:
    """A file that holds the share of a running cell that is done."""
    return results / "running" / cell.key


def _reporter(cell: Cell, execution: Execution) -> Callable[[float], None]:
    """Write the share done to the cell's progress file, a few times a second at most."""
    path = progress_file(execution.results, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    last = 0.0

    def report(fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.3:
            path.write_text(f"{fraction:.4f}")
            last = now

    return report


def _store(
    outcome: Outcome,
    rows: list[dict[str, Any]],
    execution: Execution,
    beside: int,
    wall_seconds: float,
    started: str,
) -> None:
    cell = outcome.cell
    common = {
        "schema_version": SCHEMA_VERSION,
        "key": cell.key,
        "seed": cell.seed,
        "profile": execution.profile,
        "dataset": cell.task_settings["dataset"],
        "hyperparameters": hyperparameters(cell),
        "status": outcome.status,
        "reason": outcome.reason,
        "wall_seconds": wall_seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": execution.threads,
        "cells_beside": beside,
        "device": device_name(execution.device),
        "started": started,
        **provenance(),
        "command": execution.command,
    }
    write_cell(execution.results, cell, [common | row for row in rows])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
