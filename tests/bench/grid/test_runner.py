"""Whatever goes wrong in a cell becomes its row, and every cell comes to one outcome."""

import itertools
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from bench.cells import provenance
from bench.cells.cell import Cell, Planned
from bench.cells.training import Row
from bench.grid import executors, grid, runner
from bench.grid.claims import claimed
from bench.grid.grid import run_cells
from bench.grid.limits import Limits, killed_if_stuck
from bench.profiles.profile import Profile
from bench.results.store import cell_path
from tests.bench.conftest import cell_of

Work = Callable[..., Iterator[Row]]


@pytest.fixture
def execution(tmp_path: Path) -> runner.Execution:
    return runner.Execution(tmp_path, "tiny", None, "cpu", jobs=1, command="test")


@pytest.fixture
def cell(profile: Profile) -> Cell:
    return cell_of(profile, "bitvector", "sfe")


@pytest.fixture
def working(monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], None]:
    """Have cells do something else."""
    return lambda work: monkeypatch.setattr(runner, "train_cell", work)


def broken(*arguments: object, **named: object) -> Iterator[Row]:
    yield {"step": 0, "split": "validation"}
    raise ZeroDivisionError("by\nnought")


def stored_rows(execution: runner.Execution) -> pd.DataFrame:
    return pd.read_parquet(execution.results / "cells")


def statuses(cell: Cell, execution: runner.Execution) -> list[str]:
    """What a run of the cell tells as it comes, which is also what it returns."""
    seen: list[runner.Outcome] = []
    assert run_cells([Planned(cell, None)], execution, seen.append) == seen
    return [outcome.status for outcome in seen]


def test_a_failure_is_a_row_with_its_place_and_its_traceback(
    cell: Cell, execution: runner.Execution, working: Callable[[Work], None]
) -> None:
    working(broken)
    (outcome,) = run_cells([Planned(cell, None)], execution)
    rows = stored_rows(execution)
    assert rows["step"].tolist() == [0]
    for end in (outcome, rows.iloc[0]):
        assert end.status == "failed"
        assert end.reason.startswith("ZeroDivisionError: by nought (test_runner.py:")
        assert "\n" not in end.reason
        assert end.traceback.splitlines()[-2:] == ["ZeroDivisionError: by", "nought"]
        assert 'raise ZeroDivisionError("by' in end.traceback
        assert len(end.traceback.splitlines()) <= runner.TRACEBACK_LINES


def test_a_cell_whose_threads_a_library_has_changed_has_failed(
    cell: Cell, execution: runner.Execution, working: Callable[[Work], None]
) -> None:
    """Its time and the order of its sums would be those of another cell."""

    def changing(*arguments: object, **named: object) -> Iterator[Row]:
        torch.set_num_threads(cell.threads + 1)
        yield {"step": 0, "split": "validation"}

    working(changing)
    before = torch.get_num_threads()
    try:
        (outcome,) = run_cells([Planned(cell, None)], execution)
    finally:
        torch.set_num_threads(before)
    assert outcome.status == "failed"
    assert outcome.reason is not None
    assert "at::get_num_threads is 2, omp_get_max_threads is 2" in outcome.reason
    assert "in a cell of 1: a library has changed it" in outcome.reason


def test_a_failure_is_told_without_secrets_and_orders_to_terminals(
    cell: Cell, execution: runner.Execution, working: Callable[[Work], None]
) -> None:
    def barred(*arguments: object, **named: object) -> Iterator[Row]:
        raise OSError("no answer from\x1b[31m http://me:s3cret@proxy:3128")
        yield {}

    working(barred)
    (outcome,) = run_cells([Planned(cell, None)], execution)
    for end in (outcome, stored_rows(execution).iloc[0]):
        assert end.reason.startswith(
            "OSError: no answer from\\x1b[31m http://me:***@proxy:3128 (test_runner.py:"
        )
        assert "\x1b" not in end.traceback
        assert end.traceback.endswith("http://me:***@proxy:3128")


def test_the_place_of_a_failure_in_torch_is_where_it_was_called(cell: Cell) -> None:
    with pytest.raises(RuntimeError) as error:
        torch.nn.Linear(3, 3)(torch.ones(2, 2))
    reason = runner.failure(cell, error.value, Limits()).reason
    assert reason is not None
    assert "(test_runner.py:" in reason


def test_a_failure_is_tried_again_unless_one_says_not_to(
    cell: Cell, execution: runner.Execution, working: Callable[[Work], None]
) -> None:
    real = runner.train_cell
    working(broken)
    assert statuses(cell, execution) == ["failed"]
    first = stored_rows(execution)["started"].iloc[0]
    assert statuses(cell, execution) == ["failed"]
    second = stored_rows(execution)["started"].iloc[0]
    assert second > first
    working(real)
    left = run_cells([Planned(cell, None)], replace(execution, retry=False))
    assert [(o.status, o.reason[:17]) for o in left if o.reason] == [
        ("failed", "ZeroDivisionError")
    ]
    assert left[0].traceback
    assert stored_rows(execution)["started"].iloc[0] == second
    assert statuses(cell, execution) == ["ok"]
    assert not (execution.results / "running").exists()


def test_what_is_stored_is_run_again_by_force_alone(
    cell: Cell, execution: runner.Execution
) -> None:
    assert statuses(cell, execution) == ["ok"]
    first = stored_rows(execution)
    assert statuses(cell, execution) == ["stored"]
    assert stored_rows(execution)["started"].equals(first["started"])
    assert statuses(cell, replace(execution, force=True, retry=False)) == ["ok"]
    second = stored_rows(execution)
    assert (second["started"] > first["started"]).all()
    pd.testing.assert_series_equal(first["elbo"], second["elbo"])


def test_no_option_of_a_run_is_part_of_a_key(cell: Cell, execution: runner.Execution) -> None:
    """Nor changes a number."""
    assert statuses(cell, execution) == ["ok"]
    limits = Limits(seconds=600, ends=time.time() + 600, memory=2**40)
    other = replace(execution, results=execution.results / "other", limits=limits, retry=False)
    assert statuses(cell, other) == ["ok"]
    assert cell_path(other.results, cell).is_file()
    pd.testing.assert_series_equal(stored_rows(other)["elbo"], stored_rows(execution)["elbo"])


@pytest.mark.parametrize("reports", [True, False])
def test_a_cell_is_stopped_after_its_time_and_keeps_its_rows(
    cell: Cell,
    execution: runner.Execution,
    working: Callable[[Work], None],
    reports: bool,
) -> None:
    """Also one that hangs."""

    def endless(*arguments: object, **named: object) -> Iterator[Row]:
        report = arguments[3]
        assert callable(report)
        yield {"step": 0, "split": "validation"}
        for _ in range(1000):
            time.sleep(0.05)
            if reports:
                report(0.5)

    working(endless)
    limited = replace(execution, limits=Limits(seconds=0.3, grace=60 if reports else 1))
    assert statuses(cell, limited) == ["timeout"]
    rows = stored_rows(execution)
    assert rows["step"].tolist() == [0]
    assert rows["reason"].tolist() == ["took more than 0.3 s (--time-limit)"]
    working(lambda *arguments, **named: iter([{"step": 1}]))
    assert statuses(cell, replace(limited, retry=False)) == ["timeout"]
    assert statuses(cell, limited) == ["ok"]


def stuck(todo: executors.Todo, execution: runner.Execution, beside: int) -> None:
    """Hang where no alarm is heard."""
    with killed_if_stuck(execution.limits):
        sum(itertools.repeat(0))


def test_a_cell_that_heeds_nothing_is_killed_and_told(
    cell: Cell, execution: runner.Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "_run_in_worker", stuck)
    outcomes: list[runner.Outcome] = []
    limited = replace(execution, jobs=2, limits=Limits(seconds=0.2, grace=0.2))
    executors.run_here([executors.Todo(cell, None)], limited, outcomes.append)
    assert [(outcome.status, outcome.reason) for outcome in outcomes] == [
        ("timeout", "took more than 0.2 s (--time-limit), and did not heed it")
    ]
    assert stored_rows(execution)["status"].tolist() == ["timeout"]


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        ("SIGKILL", "was killed, for want of memory perhaps: free some, and run again"),
        ("SIGSEGV", "died: SIGSEGV(-11)"),
    ],
)
def test_how_a_process_died_is_told_by_its_exit_code(
    ended: str,
    reason: str,
    cell: Cell,
    execution: runner.Execution,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dying = partial(end_by, signal.Signals[ended])
    monkeypatch.setattr(executors, "_run_in_worker", dying)
    outcome = executors._run_alone(executors.Todo(cell, None), execution)
    assert outcome is not None
    assert outcome.reason == f"its process {reason}"


def end_by(number: int, *arguments: object) -> None:
    os.kill(os.getpid(), number)


class Dying:
    """A pool whose process dies of what it is given."""

    def __init__(self, max_workers: int) -> None: ...

    def submit(self, *arguments: object) -> None:
        raise BrokenProcessPool

    def shutdown(self, kill_workers: bool) -> None: ...


def test_a_cell_that_killed_its_process_leaves_what_another_run_made_of_it(
    cell: Cell, execution: runner.Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who took it as soon as that process was dead, and may still be at it."""
    monkeypatch.setattr(executors, "ProcessPoolExecutor", Dying)
    todo = executors.Todo(cell, seen=None)
    runner.run_cell(cell, execution, 0)
    assert executors._run_alone(todo, execution) == runner.Outcome(cell, "stored", None)
    assert set(stored_rows(execution)["status"]) == {"ok"}
    with claimed(runner.progress_file(execution.results, cell)):
        assert executors._run_alone(todo, execution) is None


def test_a_row_has_the_commit_that_its_cell_began_with(
    cell: Cell,
    execution: runner.Execution,
    working: Callable[[Work], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The code that runs was imported by then, whatever is committed meanwhile."""
    monkeypatch.setattr(provenance, "_git", lambda *arguments: "before")

    def edited(*arguments: object, **named: object) -> Iterator[Row]:
        monkeypatch.setattr(provenance, "_git", lambda *arguments: "after")
        yield {"step": 0}

    working(edited)
    provenance.provenance.cache_clear()
    assert statuses(cell, execution) == ["ok"]
    provenance.provenance.cache_clear()
    assert stored_rows(execution)["commit"].tolist() == ["before"]


def test_what_a_grid_has_no_time_for_is_told_and_left_to_the_next_run(
    cell: Cell, execution: runner.Execution
) -> None:
    late = replace(execution, limits=Limits(ends=time.time() - 1))
    (outcome,) = run_cells([Planned(cell, None)], late)
    assert (outcome.status, outcome.reason) == ("timeout", runner.NOT_BEGUN)
    assert not cell_path(execution.results, cell).exists()
    assert statuses(cell, replace(execution, retry=False)) == ["ok"]


def test_a_cell_that_takes_too_much_memory_fails_and_says_why(
    cell: Cell, execution: runner.Execution, working: Callable[[Work], None]
) -> None:
    def greedy(*arguments: object, **named: object) -> Iterator[Row]:
        yield {"step": 0}
        torch.ones(2**32)

    working(greedy)
    limited = replace(execution, limits=Limits(memory=2**33))
    (outcome,) = run_cells([Planned(cell, None)], limited)
    assert outcome.status == "failed"
    assert outcome.reason is not None
    assert outcome.reason.startswith("needs more memory than --max-memory allows: RuntimeError")
    assert len(stored_rows(execution)) == 1


def test_a_cell_that_another_run_is_at_is_waited_for(
    cell: Cell,
    profile: Profile,
    execution: runner.Execution,
    working: Callable[[Work], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And its outcome taken, while cells that are free are run."""
    free, real, seen, slept = cell_of(profile, "ssvae", "none"), runner.train_cell, [], []
    claim = claimed(runner.progress_file(execution.results, cell))
    claim.__enter__()

    def the_other_ends(seconds: float) -> None:
        slept.append(list(seen))
        working(broken)
        runner.run_cell(cell, execution, 0)
        claim.__exit__(None, None, None)

    monkeypatch.setattr(grid.time, "sleep", the_other_ends)
    working(lambda cell, *arguments, **named: real(cell, *arguments, **named))
    outcomes = run_cells(
        [Planned(cell, None), Planned(free, None)], execution, lambda o: seen.append(o.cell.name)
    )
    assert slept == [[free.name]]
    assert {o.cell.name: o.status for o in outcomes} == {free.name: "ok", cell.name: "failed"}


def test_a_cell_whose_run_died_is_run_by_the_one_that_waits(
    cell: Cell, execution: runner.Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claimed(runner.progress_file(execution.results, cell))
    claim.__enter__()
    monkeypatch.setattr(grid.time, "sleep", lambda seconds: claim.__exit__(None, None, None))
    assert statuses(cell, execution) == ["ok"]


def test_a_cell_that_another_run_stored_meanwhile_is_not_run_again(
    cell: Cell, execution: runner.Execution
) -> None:
    todo = executors.Todo(cell, seen=None)
    assert statuses(cell, execution) == ["ok"]
    outcome = executors.run_claimed(todo, execution, 0)
    assert outcome == runner.Outcome(cell, "stored", None)


def test_a_cell_whose_file_is_cut_short_is_run_again(
    cell: Cell, execution: runner.Execution
) -> None:
    assert statuses(cell, execution) == ["ok"]
    whole, path = stored_rows(execution), cell_path(execution.results, cell)
    path.write_bytes(path.read_bytes()[:-100])
    assert statuses(cell, execution) == ["ok"]
    pd.testing.assert_series_equal(stored_rows(execution)["elbo"], whole["elbo"])


def test_a_process_that_joblib_replaces_is_nothing_to_tell(
    cell: Cell, execution: runner.Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pool(**_: object) -> Callable[[Iterator[object]], Iterator[object]]:
        said = "A worker stopped while some jobs were given to the executor. This can be caused by"
        warnings.warn(said, UserWarning, stacklevel=1)
        return lambda tasks: iter(())

    monkeypatch.setattr(executors, "Parallel", pool)
    with warnings.catch_warnings(record=True) as told:
        executors.run_here([executors.Todo(cell, None)], execution, lambda outcome: None)
    assert not told


def test_this_process_looks_where_loops_are_kept_before_its_workers_do(
    execution: runner.Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As whoever looks first warns for all."""
    events: list[str] = []
    monkeypatch.setattr(executors, "cache_of_loops", lambda: events.append("looked"))
    monkeypatch.setattr(executors, "side_by_side", lambda *_, **__: events.append("began") or [])
    executors.run_here([], execution, lambda outcome: None)
    assert events == ["looked", "began"]


def test_a_skipped_pair_is_a_row(profile: Profile, execution: runner.Execution) -> None:
    cell = cell_of(profile, "ssvae", "sparsemap")
    (outcome,) = run_cells([Planned(cell, "because")], execution)
    assert (outcome.status, outcome.reason) == ("skipped", "because")
    row = pd.read_parquet(execution.results / "cells").iloc[0]
    assert (row["status"], row["reason"], row["dataset"]) == ("skipped", "because", "digits")
