"""Ways to run many cells at a time: processes of this machine, or the workers of a Dask cluster."""

import re
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from joblib import Parallel, delayed
from joblib.externals.loky import ProcessPoolExecutor

from bench.cells.cell import Cell
from bench.grid.claims import Report, claimed, is_abandoned
from bench.grid.limits import killed_if_stuck
from bench.grid.processes import deaf_children, side_by_side
from bench.grid.runner import Clock, Execution, Outcome, progress_file, run_cell, store_outcome
from bench.results.store import stored_end, stored_stamp
from tasks.likelihoods.compiled import cache_of_loops

IN_FLIGHT = 500
"""Most cells that are with a cluster at a time: each takes a thread and an open file here."""

Done = Callable[[Outcome], None]


@dataclass(frozen=True)
class Todo:
    """A cell to run."""

    cell: Cell
    seen: int | None
    """The stamp of what is stored of it, or None. Has it another when its turn comes, then another
    run has been there."""


class Run(Protocol):
    """Runs a cell and stores its outcome."""

    def __call__(
        self, cell: Cell, execution: Execution, beside: int | None, *, report: Report
    ) -> Outcome: ...


def run_claimed(
    todo: Todo, execution: Execution, beside: int | None, run: Run = run_cell
) -> Outcome | None:
    """Run a cell unless another process has run it meanwhile, whose outcome is given then.

    None where another process is at it.
    """
    with claimed(progress_file(execution.results, todo.cell)) as report:
        if report is None:
            return None
        if stored_stamp(execution.results, todo.cell) != todo.seen:
            end = stored_end(execution.results, todo.cell)
            if end is not None:
                return stored_outcome(todo.cell, *end)
        return run(todo.cell, execution, beside, report=report)


def stored_outcome(
    cell: Cell, status: str, reason: str | None, traceback: str | None = None
) -> Outcome:
    """The outcome of a cell that was stored before."""
    return Outcome(cell, "stored" if status == "ok" else status, reason, traceback)


def run_here(todo: Sequence[Todo], execution: Execution, done: Done) -> None:
    """Run cells on this machine until all are through, or a process dies.

    A cell that was running then is run again, alone in a process: if that dies too, it has failed.
    """
    beside = min(execution.jobs, len(todo)) - 1
    work = run_claimed if execution.jobs == 1 else _run_in_worker
    calls = ((work, (one, execution, beside)) for one in todo)
    over: set[str] = set()
    cache_of_loops()  # so that where they can't be kept only this process warns, and no worker
    try:
        for outcome in side_by_side(calls, execution.jobs, ahead=execution.jobs):
            if outcome is not None:
                over.add(outcome.cell.key)
                done(outcome)
    except BrokenProcessPool:
        left = [one for one in todo if one.cell.key not in over]
        died = [one for one in left if is_abandoned(progress_file(execution.results, one.cell))]
        for one in died or left[:1]:
            outcome = _run_alone(one, execution)
            if outcome is not None:
                done(outcome)


def run_on_dask(todo: Sequence[Todo], execution: Execution, done: Done) -> None:
    """Run cells on a cluster, and store here what comes back.

    Raises:
        UserError: Dask is not installed, or its scheduler can't be reached.
    """
    from bench.grid.remote import connected, run_remotely

    assert execution.scheduler is not None
    with connected(execution.scheduler) as client:
        run: Run = partial(run_remotely, client)
        flying = min(IN_FLIGHT, len(todo))
        pool = Parallel(n_jobs=flying, backend="threading", return_as="generator_unordered")
        for outcome in pool(delayed(run_claimed)(one, execution, None, run) for one in todo):
            if outcome is not None:
                done(outcome)


def _why_died(error: BrokenProcessPool) -> str:
    """What is known of the end of a cell's process, of which loky gives the exit code."""
    code = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
    if code is None or "SIGKILL" in code[1]:
        return "its process was killed, for want of memory perhaps: free some, and run again"
    return f"its process died: {code[1]}"


def _run_in_worker(todo: Todo, execution: Execution, beside: int) -> Outcome | None:
    """Run a cell in a process that others do without, should it have to be killed."""
    with killed_if_stuck(execution.limits):
        return run_claimed(todo, execution, beside)


def _run_alone(todo: Todo, execution: Execution) -> Outcome | None:
    """Run a cell in a process of its own, whose death is the cell's."""
    clock, left = Clock(), execution.limits.left()
    pool = ProcessPoolExecutor(max_workers=1)
    try:
        with deaf_children():
            running = pool.submit(_run_in_worker, todo, execution, 0)
        outcome: Outcome | None = running.result()
        return outcome
    except BrokenProcessPool as error:
        if left is not None and clock.seconds > left.seconds:
            ended = Outcome(todo.cell, "timeout", f"{left.reason}, and did not heed it")
        else:
            ended = Outcome(todo.cell, "failed", _why_died(error))
    finally:
        pool.shutdown(kill_workers=True)

    def tell(cell: Cell, execution: Execution, beside: int | None, *, report: Report) -> Outcome:
        store_outcome(ended, [], execution, beside, clock)
        return ended

    return run_claimed(todo, execution, 0, tell)  # another run may have taken the cell meanwhile
