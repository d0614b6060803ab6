"""What is told while a grid runs: to a person at a terminal, to a file, to a machine."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from bench.cells.cell import Cell, Planned
from bench.cli import progress
from bench.cli.output import Output
from bench.cli.progress import Tally, shown
from bench.grid.grid import run_cells
from bench.grid.runner import Execution, Outcome, progress_file
from bench.profiles.profile import Profile
from bench.results.store import write_cell
from tests.bench.conftest import cell_of


class Clock:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def execution(tmp_path: Path) -> Execution:
    (tmp_path / "running").mkdir()
    return Execution(tmp_path, "tiny", None, "cpu", jobs=2, command="test")


@pytest.fixture
def cells(profile: Profile) -> list[Cell]:
    return [cell_of(profile, "ssvae", name, seed) for name in ("sfe", "dense") for seed in (0, 1)]


def ended(execution: Execution, cell: Cell, status: str = "ok", seconds: float = 10.0) -> Outcome:
    """The outcome of a cell that is stored."""
    row: dict[str, Any] = {"key": cell.key, "seed": cell.seed, "status": status}
    write_cell(execution.results, cell, [row | {"wall_seconds": seconds}])
    return Outcome(cell, status, None if status == "ok" else "because of this")


def moves(execution: Execution, cell: Cell, share: float) -> None:
    progress_file(execution.results, cell).write_text(f"{share:.4f}")


def test_the_time_left_learns_from_what_ended_and_from_what_runs(
    execution: Execution, cells: list[Cell], clock: Clock
) -> None:
    tally = Tally(cells, execution)

    def left() -> float | None:
        return tally.left([*tally.running().values()])

    assert left() is None
    moves(execution, cells[0], 0.0)
    assert left() is None
    clock.now += 5
    moves(execution, cells[0], 0.5)  # ten seconds a cell, five of the first are over
    assert left() == pytest.approx((5 + 3 * 10) / 2)
    progress_file(execution.results, cells[0]).unlink()
    assert tally.add(ended(execution, cells[0], seconds=20.0)) == 20
    assert left() == 3 * 20 / 2
    tally.add(ended(execution, cells[1], "failed", seconds=1000.0))  # tells nothing of the others
    assert left() == 2 * 20 / 2


def test_a_share_that_falls_back_begins_another_part(
    execution: Execution, cells: list[Cell], clock: Clock
) -> None:
    """As where a model is trained first, and then its gradients are measured."""
    tally = Tally(cells, execution)
    for share, rate in ((0.0, None), (0.8, 0.8), (0.1, None), (0.3, 0.2)):
        moves(execution, cells[0], share)
        (running,) = tally.running().values()
        assert running.share == share
        assert running.rate == (rate and pytest.approx(rate))
        clock.now += 1


def test_a_file_that_is_half_written_is_not_shown(execution: Execution, cells: list[Cell]) -> None:
    progress_file(execution.results, cells[0]).write_text("")
    assert Tally(cells, execution).running() == {}


def test_an_outcome_that_is_not_stored_took_no_time_that_is_known(
    execution: Execution, cells: list[Cell]
) -> None:
    tally = Tally(cells, execution)
    assert tally.add(Outcome(cells[0], "timeout", "not begun")) is None
    assert tally.ended == 1


def told(execution: Execution, cells: list[Cell], output: Output, terminal: bool = False) -> str:
    """What is printed of three outcomes."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=200, quiet=output.json)
    with shown(cells, execution, output, console) as done:
        done(ended(execution, cells[0]))
        done(ended(execution, cells[1], "failed", seconds=0.123))
        done(Outcome(cells[2], "skipped", "it takes [bits] only"))
    return file.getvalue()


def test_a_file_gets_no_bars_where_colours_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert Output().console().is_terminal
    assert not Output().console().is_interactive


def test_a_file_gets_a_line_for_each_outcome_with_the_time_left(
    execution: Execution, cells: list[Cell]
) -> None:
    assert told(execution, cells, Output()).splitlines() == [
        "[1/4] ssvae/sfe/0 ok (10 s), about 15 s left",
        "[2/4] ssvae/sfe/1 failed: because of this (0.12 s), about 10 s left",
        "[3/4] ssvae/dense/0 skipped: it takes [bits] only",
    ]


def test_quiet_tells_what_failed_alone(execution: Execution, cells: list[Cell]) -> None:
    for terminal in (False, True):
        text = told(execution, cells, Output(quiet=True), terminal)
        assert text == "ssvae/sfe/1: failed: because of this\n"


def test_a_machine_gets_an_object_for_each_outcome(
    execution: Execution, cells: list[Cell], capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(execution, cells, Output(json=True)) == ""
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records[1] == {
        "event": "cell", "cell": "ssvae/sfe/1", "key": cells[1].key, "task": "ssvae",
        "estimator": "sfe", "seed": 1, "status": "failed", "reason": "because of this",
        "seconds": 0.123,
    }  # fmt: skip
    assert [(one["status"], one["seconds"]) for one in records] == [
        ("ok", 10), ("failed", 0.123), ("skipped", None),
    ]  # fmt: skip


def test_a_terminal_shows_the_grid_and_each_running_cell(
    execution: Execution, cells: list[Cell], clock: Clock
) -> None:
    tally = Tally(cells, execution)
    with Progress(console=Console(file=io.StringIO()), auto_refresh=False) as bars:
        drawn = progress._Bars(tally, bars)
        moves(execution, cells[0], 0.0)
        moves(execution, cells[2], 0.0)
        drawn.draw()
        clock.now += 10
        moves(execution, cells[0], 0.25)
        drawn.draw()

        def lines() -> list[tuple[str, str, str]]:
            return [(t.description, t.fields["done"], t.fields["left"]) for t in bars.tasks]

        assert lines() == [
            ("cells", "0/4", "about 75 s left"),  # 30 and three times 40 seconds, two at a time
            ("ssvae/sfe/0", "25%", "about 30 s left"),
            ("ssvae/dense/0", "0%", ""),
        ]
        progress_file(execution.results, cells[0]).unlink()
        tally.add(ended(execution, cells[0]))
        drawn.draw()
        assert [line[:2] for line in lines()] == [("cells", "1/4"), ("ssvae/dense/0", "0%")]


def test_a_terminal_is_told_of_failures_at_once(execution: Execution, cells: list[Cell]) -> None:
    text = told(execution, cells, Output(), terminal=True)
    assert "ssvae/sfe/1: failed: because of this" in text
    assert "ssvae/sfe/0: ok" not in text


def test_a_grid_that_is_gone_on_with_knows_at_once(
    execution: Execution, cells: list[Cell], profile: Profile
) -> None:
    """What is stored tells how long the rest will take."""
    ended(execution, cells[0], seconds=40.0)
    tally = Tally(cells, execution)
    for outcome in run_cells([Planned(cells[0], None)], execution):
        assert (outcome.status, tally.add(outcome)) == ("stored", 40)
    assert tally.left([]) == 60
