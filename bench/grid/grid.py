"""Runs a grid: every cell that is asked for comes to one outcome, whatever dies meanwhile."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bench.cells.cell import Cell, Planned
from bench.cells.threads import use_threads
from bench.cells.warm_start import warm_start, warm_start_of
from bench.gradients.cell import checkpoints, model_of
from bench.grid.claims import Report, claimed, folder_claimed, is_claimed, sweep
from bench.grid.executors import Done, Todo, run_here, run_on_dask, stored_outcome
from bench.grid.limits import in_time
from bench.grid.loops import compile_before
from bench.grid.processes import side_by_side
from bench.grid.runner import (
    CHECKPOINTS,
    MODELS,
    NOT_BEGUN,
    Clock,
    Execution,
    Outcome,
    progress_file,
    store_outcome,
)
from bench.results.store import note_grid, stored_end, stored_stamp

Train = Callable[[Cell, Path, Path | None, str, Report], object]
"""Trains a model that a cell starts from, and keeps it in a folder."""

POLL_SECONDS = 1.0
"""Between two looks at cells that another run is at."""


def run_cells(
    planned: Sequence[Planned], execution: Execution, done: Done = lambda outcome: None
) -> list[Outcome]:
    """Run what is not stored yet and return an outcome for every cell, in no fixed order.

    Several processes may do so in one folder at a time: what one of them runs the others wait for.

    Args:
        planned: the cells of the grid.
        execution: how to run them.
        done: called with each outcome as it comes.
    Raises:
        UserError: an outcome can't be stored, or the cluster can't be reached.
    """
    outcomes: dict[str, Outcome] = {}

    def finish(outcome: Outcome) -> None:
        outcomes[outcome.cell.key] = outcome
        done(outcome)

    running = execution.results / "running"
    sweep(running)
    with folder_claimed(execution.results):
        note_grid(execution.results, [item.cell for item in planned], execution.command)
    todo = []
    for item in planned:
        seen, outcome = stored_stamp(execution.results, item.cell), _without_run(item, execution)
        if outcome is None:
            todo.append(Todo(item.cell, seen))
        else:
            finish(outcome)
    if todo and execution.scheduler is None:
        compile_before(execution.limits)
        _train_models([one.cell for one in todo], execution)
    _run_all(todo, execution, outcomes, finish)
    for folder in (running, execution.results / CHECKPOINTS):
        with suppress(OSError):  # not there, or another run's
            folder.rmdir()
    return [*outcomes.values()]


def _without_run(item: Planned, execution: Execution) -> Outcome | None:
    """The outcome of a cell that is not to be run; None if it is."""
    stored = stored_end(execution.results, item.cell)
    if stored is not None and stored.status == "ok":
        if execution.force and item.skip is None:
            return None
        return stored_outcome(item.cell, *stored)
    if item.skip is not None:
        outcome = Outcome(item.cell, "skipped", item.skip)
        if stored is None or stored.status != "skipped":
            store_outcome(outcome, [], execution, 0, Clock())
        return outcome
    if stored is None or stored.status == "skipped" or execution.retry or execution.force:
        return None
    return stored_outcome(item.cell, *stored)


def _run_all(
    todo: Sequence[Todo], execution: Execution, outcomes: dict[str, Outcome], finish: Done
) -> None:
    """Run cells until `outcomes`, which `finish` fills, has them all."""
    run = run_here if execution.scheduler is None else run_on_dask
    while todo:
        free = [o for o in todo if not is_claimed(progress_file(execution.results, o.cell))]
        if free:
            run(free, execution, finish)
        elif execution.limits.over():
            for one in todo:
                finish(Outcome(one.cell, "timeout", NOT_BEGUN))
        else:
            time.sleep(POLL_SECONDS)
        # What is left is with another run, or had no chance: a worker died, and its pool with it.
        todo = [one for one in todo if one.cell.key not in outcomes]


def _train_models(cells: Sequence[Cell], execution: Execution) -> None:
    """Train what several cells start from, each once: warm starts, and then the models that
    gradients are measured of, whose gradients are enumerated.

    What goes wrong is left to the cells, which train a model that is not there, and tell.
    """
    trained = [cell if cell.gradients is None else model_of(cell) for cell in cells]
    starts = {start.key: cell for cell in trained if (start := warm_start_of(cell))}
    models = {model_of(cell).key: cell for cell in cells if cell.gradients is not None}
    with suppress(BrokenProcessPool):
        for train, of in ((warm_start, starts), (checkpoints, models)):
            calls = ((_train_model, (train, *one, execution)) for one in of.items())
            for _ in side_by_side(calls, execution.jobs, ahead=0):
                pass


def _train_model(train: Train, key: str, cell: Cell, execution: Execution) -> None:
    """Train a model, unless another run is at it: then wait for that.

    Args:
        train: how.
        key: of the model.
        cell: one that starts from it, which is shown as running meanwhile.
        execution: how to run cells.
    """
    use_threads(cell.threads)
    results = execution.results
    grid_alone = replace(execution.limits, seconds=None)
    with (
        suppress(Exception),
        in_time(grid_alone),
        claimed(results / "running" / key, wait=True),
        claimed(progress_file(results, cell)) as report,  # None: another run is at the cell itself
    ):
        shown = report or (lambda share: None)
        train(cell, results / MODELS, execution.data_dir, execution.device, shown)
