"""Runs the cells of a grid, several at a time, and stores an outcome for each."""

import resource
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from joblib.externals.loky import ProcessPoolExecutor

from bench.cells import Cell, Planned
from bench.course import train_cell
from bench.examples import examples_of, write_examples
from bench.gradient_cell import checkpoints, gradient_cell, model_of
from bench.memory import keep_memory
from bench.profiles import Found
from bench.provenance import device_name, provenance
from bench.store import hyperparameters, note_grid, stored_status, write_cell
from bench.training import DivergedError, Row, Trainer
from bench.warm_start import warm_start, warm_start_of

MODELS = "models"
"""The folder of a results folder that trained models are kept in, warm starts among them."""

CHECKPOINTS = "checkpoints"
"""The folder of a results folder that cells in training are saved in now and then."""


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


@dataclass(frozen=True)
class Outcome:
    """What became of a cell."""

    cell: Cell
    status: str
    reason: str | None


class PrunedError(Exception):
    """Raised by who watches a cell, to end it before its time."""


Done = Callable[[Outcome], None]
Watch = Callable[[Row], None]


def run_cells(
    planned: Sequence[Planned], execution: Execution, done: Done = lambda outcome: None
) -> list[Outcome]:
    """Run what is not stored yet and return an outcome for every cell, in no fixed order.

    Args:
        planned: the cells of the grid.
        execution: how to run them.
        done: called with each outcome as it comes.
    """
    outcomes: list[Outcome] = []
    note_grid(execution.results, [item.cell for item in planned], execution.command)

    def finish(outcome: Outcome) -> None:
        outcomes.append(outcome)
        done(outcome)

    todo = []
    for item in planned:
        stored = stored_status(execution.results, item.cell)
        if stored == "ok":
            finish(Outcome(item.cell, "stored", None))
        elif item.skip is not None:
            outcome = Outcome(item.cell, "skipped", item.skip)
            if stored != "skipped":
                _store(outcome, [], execution, beside=0, wall_seconds=0.0, started=_now())
            finish(outcome)
        else:
            todo.append(item.cell)
    _train_models(todo, execution)
    while todo:
        _run_together(todo, execution, finish)
        # What is left had no chance: a worker was killed, and its pool with it.
        over = {outcome.cell.key for outcome in outcomes}
        todo = [cell for cell in todo if cell.key not in over]
    with suppress(OSError):  # not there, or another run's
        (execution.results / "running").rmdir()
    return outcomes


def _run_together(cells: Sequence[Cell], execution: Execution, finish: Done) -> None:
    """Run cells side by side until all are through, or a worker process dies.

    A cell that was running then is run again, alone in a process: if that dies too, it has failed.
    """
    beside = min(execution.jobs, len(cells)) - 1
    pool = Parallel(n_jobs=execution.jobs, return_as="generator_unordered", batch_size=1)
    over: set[str] = set()
    for cell in cells:  # a run that was killed may have left some
        progress_file(execution.results, cell).unlink(missing_ok=True)
    try:
        for outcome in pool(delayed(run_cell)(cell, execution, beside) for cell in cells):
            over.add(outcome.cell.key)
            finish(outcome)
    except BrokenProcessPool:
        left = [cell for cell in cells if cell.key not in over]
        running = [cell for cell in left if progress_file(execution.results, cell).exists()]
        for cell in running or left[:1]:
            finish(_run_alone(cell, execution))


def _run_alone(cell: Cell, execution: Execution) -> Outcome:
    """Run a cell in a process of its own, whose death is the cell's."""
    started, start = _now(), time.perf_counter()
    with ProcessPoolExecutor(max_workers=1) as pool:
        try:
            outcome: Outcome = pool.submit(run_cell, cell, execution, 0).result()
        except BrokenProcessPool:
            reason = "its process was killed, for want of memory perhaps: free some, and run again"
            outcome = Outcome(cell, "failed", reason)
            progress_file(execution.results, cell).unlink(missing_ok=True)
            _store(outcome, [], execution, 0, time.perf_counter() - start, started)
    return outcome


def run_cell(
    cell: Cell, execution: Execution, beside: int, watch: Watch = lambda row: None
) -> Outcome:
    """Train and store one cell; whatever goes wrong becomes its outcome, after the rows so far.

    Args:
        cell: what to run.
        execution: how.
        beside: how many other cells run at the same time.
        watch: called with each row as it comes; may raise `PrunedError`.
    """
    started, start = _now(), time.perf_counter()
    rows: list[Row] = []
    try:
        torch.set_num_threads(cell.threads)
        keep_memory()
        for row in _work(cell, execution):
            rows.append(row)
            watch(row)
        outcome = Outcome(cell, "ok", None)
    except PrunedError as error:
        outcome = Outcome(cell, "pruned", str(error))
    except DivergedError as error:
        outcome = Outcome(cell, "diverged", str(error))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        outcome = Outcome(cell, "failed", f"{type(error).__name__}: {error} ({where})")
    finally:
        progress_file(execution.results, cell).unlink(missing_ok=True)
    _store(outcome, rows, execution, beside, time.perf_counter() - start, started)
    if outcome.status != "failed":  # what failed may go on from there
        checkpoint_file(execution.results, cell).unlink(missing_ok=True)
    return outcome


def _work(cell: Cell, execution: Execution) -> Iterator[Row]:
    """The rows of a cell, as they come."""
    where = (execution.data_dir, execution.device, _reporter(cell, execution))
    if cell.gradients is not None:
        return gradient_cell(cell, execution.results / MODELS, *where)

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


def _train_models(cells: Sequence[Cell], execution: Execution) -> None:
    """Train what several cells start from, each once: warm starts, and then the models that
    gradients are measured of, whose gradients are enumerated.

    What goes wrong is left to the cells, which train a model that is not there, and tell.
    """
    starts, models = {}, {}
    for cell in cells:
        start = warm_start_of(_training_of(cell))
        if start is not None:
            starts[start.key] = cell
        if cell.gradients is not None:
            models[model_of(cell).key] = cell
    pool = Parallel(n_jobs=execution.jobs, batch_size=1)
    with suppress(BrokenProcessPool):
        pool(delayed(_train_start)(cell, execution) for cell in starts.values())
        pool(delayed(_train_model)(cell, execution) for cell in models.values())


def _training_of(cell: Cell) -> Cell:
    """A cell that trains: itself, or the model that it measures."""
    return cell if cell.gradients is None else model_of(cell)


def _train_start(cell: Cell, execution: Execution) -> None:
    torch.set_num_threads(cell.threads)
    report = _reporter(cell, execution)
    with suppress(Exception):
        folder = execution.results / MODELS
        warm_start(_training_of(cell), folder, execution.data_dir, execution.device, report)
    progress_file(execution.results, cell).unlink(missing_ok=True)


def _train_model(cell: Cell, execution: Execution) -> None:
    torch.set_num_threads(cell.threads)
    report = _reporter(cell, execution)
    with suppress(Exception):
        folder = execution.results / MODELS
        checkpoints(cell, folder, execution.data_dir, execution.device, report)
    progress_file(execution.results, cell).unlink(missing_ok=True)


def progress_file(results: Path, cell: Cell) -> Path:
    """A file that holds the share of a running cell that is done."""
    return results / "running" / cell.key


def checkpoint_file(results: Path, cell: Cell) -> Path:
    """The file that a cell in training is saved in."""
    return results / CHECKPOINTS / f"{cell.key}.pt"


def _reporter(cell: Cell, execution: Execution) -> Callable[[float], None]:
    """Write the share done to the cell's progress file, a few times a second at most."""
    path = progress_file(execution.results, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("0")
    last = time.monotonic()

    def report(fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.3:
            with suppress(OSError):  # progress is worth no failure
                path.write_text(f"{fraction:.4f}")
            last = now

    return report


def _store(
    outcome: Outcome,
    rows: list[Row],
    execution: Execution,
    beside: int,
    wall_seconds: float,
    started: str,
) -> None:
    """Store a cell's rows; one with its outcome alone where there are none."""
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
        "wall_seconds": wall_seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": cell.threads,
        "cells_beside": beside,
        "device": device_name(execution.device),
        "started": started,
        **provenance(),
        "command": execution.command,
        **_knob(cell),
    }
    write_cell(execution.results, cell, [common | row for row in rows or [{}]])


def _knob(cell: Cell) -> dict[str, Any]:
    """The columns of a cell that measures an estimator with a setting turned."""
    stands = {} if cell.gradients is None else cell.gradients["knob"]
    return {n: v for name, at in stands.items() for n, v in (("knob", name), ("knob_value", at))}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
