"""What the command line prints: tables, durations, and cells that did not end well."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd

MOST_LISTED = 20
"""Most cells that the end of a run lists."""


WELL = ("ok", "stored", "skipped")
"""Outcomes that need nobody's attention."""


class Bad(NamedTuple):
    """A cell that did not end well."""

    cell: str
    status: str
    reason: str | None

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


def table_of(title: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """A table of plain text, whose first column is never broken."""
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(header):
        table.add_column(name, no_wrap=place == 0)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def print_frames(
    table: "pd.DataFrame",
    frame_of: "Callable[[pd.DataFrame, str], pd.DataFrame]",
    console: Console,
) -> None:
    """What `frame_of` makes of each task of a results table."""
    for task in sorted(table["task"].unique()):
        frame = frame_of(table, task)
        if frame.empty:
            continue
        console.print(table_of(task, ("", *frame.columns), frame.itertuples()))


def print_line(console: Console, line: str) -> None:
    """A line as it is: neither broken nor coloured."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def print_bad(console: Console, bad: Sequence[Bad], rest: str) -> None:
    """The first of the cells that did not end well, and where to see the rest."""
    for one in bad[:MOST_LISTED]:
        print_line(console, f"  {one}")
    if len(bad) > MOST_LISTED:
        print_line(console, f"  and {len(bad) - MOST_LISTED} more: {rest}")


def duration(seconds: float) -> str:
    """Seconds as a person says them, such as "0.4 s", "40 s", "3 min" or "2 h 5 min"."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
