"""What is done, stale, failed and missing of what a results folder was asked for.

It reads files alone, and imports neither torch nor pandas.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from analysis.schema import PARTITIONS
from analysis.stored import (
    TABLE,
    Asked,
    OtherSchemaError,
    ResultsError,
    as_typed,
    cell_files,
    check_places,
    holds_search,
    into,
    no_results,
    partitions,
    read_grid,
    read_table,
    rows_of_cell,
    unlike,
)
from bench.cells.numerics import NUMERICS
from bench.grid.claims import running
from bench.printing import WELL, Bad, print_line, print_table

ORDER = (
    "ok", "skipped", "pruned", "failed", "diverged", "timeout", "damaged", "stale", "running",
    "missing",
)  # fmt: skip
"""States, as the table has them."""


COLUMNS = ["seed", "status", "reason", "numerics", "kernels", "command"]
"""Of a cell's rows: what there is to tell of it."""


LIMITS = ("--time-limit", "--max-memory")
"""Options that end cells."""


@dataclass(frozen=True)
class State:
    """How it stands with a cell."""

    cell: str
    """Its name: task/estimator/seed, and the setting that was turned, if one was."""
    state: str
    """The status of its rows, or missing, running, damaged, or stale: of other numerics or of a
    schema that can't be read."""
    reason: str | None = None
    command: str = ""
    """The command line that asked for it, or else the one that ran it, where that is known."""
    kernels: str | None = None
    """What it was computed with, where that is known."""

    @property
    def pair(self) -> tuple[str, str]:
        """Task and estimator."""
        task, estimator, _ = self.cell.split("/", 2)
        return task, estimator

    @property
    def rest(self) -> str:
        """The seed, and the setting that was turned."""
        return self.cell.split("/", 2)[2]


@dataclass(frozen=True)
class Status:
    """How it stands with a results folder."""

    folder: Path
    search: bool
    """Whether its cells are the trials of a search: how many there are to be is not in files."""
    states: list[State]
    """Of every cell that was asked for; of every stored one where that was not noted."""
    left_over: list[State]
    """Stored cells that are not asked for any more, of which those that are damaged matter."""

    @property
    def open(self) -> list[State]:
        """What is not well."""
        # A trial that diverged or took too long is over: its place in the study is not run again.
        well = (*WELL, "pruned", "diverged", "timeout") if self.search else WELL
        damaged = [one for one in self.left_over if one.state == "damaged"]
        return [one for one in self.states if one.state not in well] + damaged


def status_of(folder: Path) -> Status:
    """How it stands with a results folder.

    Raises:
        ResultsError: there is nothing in it, its `grid.json` is damaged, or a cell is out of place.
    """
    asked, files = read_grid(folder), cell_files(folder)
    check_places(files, asked)
    stored = {file.stem: _stored(file) for file in files}
    if not files and (folder / TABLE).is_file():
        stored = _of_table(folder / TABLE)
    held = running(folder / "running")
    if not asked:
        states = [*stored.values(), *(_running(f"?/?/{key}", file) for key, file in held.items())]
        if not states:
            raise no_results(folder)
        return Status(folder, holds_search(folder), states, [])
    states = [_asked(one, stored.pop(one.key, None), held.get(one.key)) for one in asked]
    return Status(folder, holds_search(folder), states, [*stored.values()])


def _asked(asked: Asked, stored: State | None, held: Path | None) -> State:
    """How it stands with a cell that was asked for."""
    found = stored or State(asked.cell, "missing")
    if held is not None:
        found = _running(asked.cell, held)
    return replace(found, cell=asked.cell, command=asked.command or found.command)


def _stored(file: Path) -> State:
    """What a cell's file says."""
    pair = "/".join(partitions(file))
    try:
        row = rows_of_cell(file).select(COLUMNS).to_pylist()[-1]
    except OtherSchemaError as error:
        return State(f"{pair}/{file.stem}", "stale", str(error))
    except ResultsError as error:
        return State(f"{pair}/{file.stem}", "damaged", str(error))
    return _of_row(pair, row)


def _of_row(pair: str, row: Mapping[str, Any]) -> State:
    """What the last row of a cell says."""
    name, command = f"{pair}/{row['seed']}", row["command"] or ""
    if row["numerics"] != NUMERICS:
        reason = f"of numerics {row['numerics']}, this is {NUMERICS}"
        return State(name, "stale", reason, command)
    return State(name, row["status"], row["reason"], command, row["kernels"])


def _of_table(file: Path) -> dict[str, State]:
    """What a `table.parquet` says of each cell, by key."""
    rows = read_table(file).select(["key", *PARTITIONS, *COLUMNS]).to_pylist()
    return {row["key"]: _of_row(f"{row['task']}/{row['estimator']}", row) for row in rows}


def _running(name: str, file: Path) -> State:
    """How far a cell is."""
    try:
        return State(name, "running", f"{float(file.read_text()):.0%}")
    except (OSError, ValueError):  # it has just ended, or just begun
        return State(name, "running")


def print_status(status: Status, console: Console) -> None:
    """How many cells of each pair are in which state; what is not well, and how to go on."""
    asked = "trials' cells" if status.search else "cells asked for"
    print_line(console, f"{status.folder}: {len(status.states)} {asked}")
    counts: dict[str, Counter[str]] = {}
    for one in status.states:
        counts.setdefault("/".join(one.pair), Counter())[one.state] += 1
    there = {one.state for one in status.states}
    header = [state for state in ORDER if state in there] + sorted(there - {*ORDER})
    rows = ((pair, *(own[state] or "" for state in header)) for pair, own in counts.items())
    print_table(console, "", ("", *header), rows)
    for one in status.open:
        if one.state != "missing":
            print_line(console, f"  {Bad(one.cell, one.state, one.reason)}")
    _print_missing(status.open, console)
    if status.left_over:
        line = f"{len(status.left_over)} stored cells are not asked for any more, and are kept"
        print_line(console, line)
    if said := unlike(one.kernels for one in status.states):
        print_line(console, f"cells are of {said}")
    for line in _how_to_go_on(status):
        print_line(console, line)


def _print_missing(states: Sequence[State], console: Console) -> None:
    """The seeds that are missing, a line for each pair."""
    missing = defaultdict(list)
    for one in states:
        if one.state == "missing":
            missing["/".join(one.pair)].append(one.rest)
    for pair, seeds in missing.items():
        print_line(console, f"  {pair}: missing: {', '.join(seeds)}")


def _how_to_go_on(status: Status) -> list[str]:
    """The command that runs what is not well, or that reports where nothing is."""
    if status.search:
        return ["a search goes on by the command that began it, if it has trials left"]
    if not status.open:
        report = as_typed("run_bench.py", "report", status.folder)
        return [f"all done; for tables and figures: {report}"]
    # With a limit that has ended a cell it would be ended again: its reason names the option.
    ended = [name for name in LIMITS if any(name in (one.reason or "") for one in status.open)]
    noted = [one.command for one in status.open if one.command]
    commands = dict.fromkeys(into(command, status.folder, ended) for command in noted)
    return [f"to go on: {command}" for command in commands or ["the command that began it"]]
