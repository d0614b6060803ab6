"""Runs a cell and stores its outcome."""

import resource
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from analysis.texts import printable
from bench.cells.cell import Cell
from bench.cells.course import train_cell
from bench.cells.examples import examples_of, write_examples
from bench.cells.memory import keep_memory
from bench.cells.provenance import device_name, provenance
from bench.cells.threads import check_threads, use_threads
from bench.cells.timing import time_cell
from bench.cells.training import DivergedError, Row, Trainer
from bench.errors import StorageError, not_written
from bench.gradients.cell import gradient_cell
from bench.grid.claims import Report
from bench.grid.limits import Limits, TimeLimitError, in_memory, in_time
from bench.profiles.profile import Found
from bench.results.store import hyperparameters, write_cell

MODELS = "models"
"""The folder of a results folder that trained models are kept in, warm starts among them."""

CHECKPOINTS = "checkpoints"
"""The folder of a results folder that cells in training are saved in now and then."""

GOES_ON = ("failed", "timeout")
"""Statuses of cells that may go on from their checkpoints."""

TRACEBACK_LINES = 12
"""Lines of a failure's traceback that are kept, the last ones."""

TORCH = str(Path(torch.__file__).parent)
"""Where a failure's last lines may be, which say nothing of who called."""

NOT_BEGUN = "not begun: the grid's time was over (--grid-time-limit)"


@dataclass(frozen=True)
class Execution:
    """How to run cells. Nothing here changes their numbers."""

    results: Path
    profile: str
    data_dir: Path | None
    device: str
    jobs: int
    command: str
    found: Mapping[str, Found] = field(default_factory=dict)
    """By "task/estimator": where values of the profile come from, if a search found them."""
    limits: Limits = field(default_factory=Limits)
    retry: bool = True
    """Run again what is stored as failed, diverged or timed out."""
    force: bool = False
    """Run again also what is stored as ok."""
    scheduler: str | None = None
    """Address of the Dask scheduler that cells are sent to; None to run them on this machine."""


@dataclass(frozen=True)
class Outcome:
    """What became of a cell."""

    cell: Cell
    status: str
    """ok, stored (ok, earlier), failed, diverged, timeout, skipped; pruned by a search."""
    reason: str | None
    """In a line."""
    traceback: str | None = None
    """Of what failed by an exception, the last lines."""


class PrunedError(Exception):
    """Raised by who watches a cell, to end it before its time."""


Watch = Callable[[Row], None]


class Clock:
    """When something began, and how long ago."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC).isoformat(timespec="microseconds")
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start


def run_cell(
    cell: Cell,
    execution: Execution,
    beside: int | None,
    watch: Watch = lambda row: None,
    report: Report = lambda share: None,
) -> Outcome:
    """Train and store one cell; whatever goes wrong becomes its outcome, after the rows so far.

    Where the grid's time is over, nothing is run and nothing stored.

    Args:
        cell: what to run.
        execution: how.
        beside: how many other cells run at the same time, where that is known.
        watch: called with each row as it comes; may raise `PrunedError`, or `StorageError`.
        report: called with the share that is done.
    Raises:
        StorageError: the outcome can't be stored, or whoever watches can't store what is seen.
    """
    if execution.limits.over():
        return Outcome(cell, "timeout", NOT_BEGUN)
    if execution.force:
        checkpoint_file(execution.results, cell).unlink(missing_ok=True)
    if checkpoint_file(execution.results, cell).exists():
        beside = None  # its earlier seconds may be of other company, or of another machine
    clock = Clock()
    provenance()  # now, as the code was when it was imported: it may be edited while the cell runs
    rows: list[Row] = []

    def report_in_time(share: float) -> None:
        check()
        report(share)

    try:
        use_threads(cell.threads)
        keep_memory()
        with in_memory(execution.limits), in_time(execution.limits) as check:
            for row in _work(cell, execution, report_in_time):
                check_threads(cell.threads)
                rows.append(row)
                watch(row)
        outcome = Outcome(cell, "ok", None)
    except PrunedError as error:
        outcome = Outcome(cell, "pruned", str(error))
    except DivergedError as error:
        outcome = Outcome(cell, "diverged", str(error))
    except TimeLimitError as error:
        outcome = Outcome(cell, "timeout", str(error))
    except StorageError:  # none of the cell's doing, which goes on from where it was saved
        raise
    except Exception as error:
        outcome = failure(cell, error, execution.limits)
    store_outcome(outcome, rows, execution, beside, clock)
    if outcome.status not in GOES_ON:
        checkpoint_file(execution.results, cell).unlink(missing_ok=True)
    return outcome


def progress_file(results: Path, cell: Cell) -> Path:
    """The claim of a running cell, which holds the share of it that is done."""
    return results / "running" / cell.key


def checkpoint_file(results: Path, cell: Cell) -> Path:
    """The file that a cell in training is saved in."""
    return results / CHECKPOINTS / f"{cell.key}.pt"


def failure(cell: Cell, error: Exception, limits: Limits) -> Outcome:
    """The outcome of a cell that an exception ended."""
    frames = traceback.extract_tb(error.__traceback__)
    last = ([f for f in frames if not f.filename.startswith(TORCH)] or frames)[-1]
    said = " ".join(f"{type(error).__name__}: {error}".split())
    reason = f"{said} ({Path(last.filename).name}:{last.lineno})"
    if limits.explains(error):
        reason = f"needs more memory than --max-memory allows: {reason}"
    lines = printable("".join(traceback.format_exception(error))).splitlines()
    return Outcome(cell, "failed", printable(reason), "\n".join(lines[-TRACEBACK_LINES:]))


def _work(cell: Cell, execution: Execution, report: Report) -> Iterator[Row]:
    """The rows of a cell, as they come."""
    where = (execution.data_dir, execution.device, report)
    if cell.gradients is not None:
        return gradient_cell(cell, execution.results / MODELS, *where)
    if cell.timing:
        return time_cell(cell, *where, models=execution.results / MODELS)

    def keep_examples(trainer: Trainer) -> None:
        if cell.last_split == "test":  # examples are of test images
            write_examples(execution.results, cell, examples_of(trainer))

    return train_cell(
        cell,
        *where,
        keep_examples,
        models=execution.results / MODELS,
        checkpoint=checkpoint_file(execution.results, cell),
    )


def store_outcome(
    outcome: Outcome, rows: list[Row], execution: Execution, beside: int | None, clock: Clock
) -> None:
    """Store a cell's rows; one with its outcome alone where there are none.

    Args:
        outcome: of the cell.
        rows: without what is the same in all rows of a cell.
        execution: how it was run.
        beside: how many other cells ran at the same time, where that is known.
        clock: that started with it.
    Raises:
        StorageError: they can't be written.
    """
    cell = outcome.cell
    common: dict[str, Any] = {
        "key": cell.key,
        "seed": cell.seed,
        "profile": execution.profile,
        "dataset": cell.task_settings["dataset"],
        "hyperparameters": hyperparameters(
            cell, execution.found.get(f"{cell.task}/{cell.estimator}")
        ),
        "status": outcome.status,
        "reason": outcome.reason,
        "traceback": outcome.traceback,
        "wall_seconds": clock.seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": cell.threads,
        "cells_beside": beside,
        "device": device_name(execution.device),
        "started": clock.started,
        **provenance(),
        "command": execution.command,
        **_knob(cell),
    }
    try:
        write_cell(execution.results, cell, [common | row for row in rows or [{}]])
    except OSError as error:
        raise not_written(f"{execution.results}: {cell.name}", error) from error


def _knob(cell: Cell) -> dict[str, Any]:
    """The columns of a cell that measures an estimator with a setting turned."""
    stands = {} if cell.gradients is None else cell.gradients["knob"]
    return {n: v for name, at in stands.items() for n, v in (("knob", name), ("knob_value", at))}
