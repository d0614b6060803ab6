"""What the command line prints: tables, durations, and cells that did not end well."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.texts import printable

if TYPE_CHECKING:
    import pandas as pd

MOST_LISTED = 20
"""Most cells that the end of a run lists."""

WIDE = 160
"""Columns of what is no terminal: a file, or another program."""

WELL = ("ok", "stored", "skipped")
"""Outcomes that need nobody's attention."""


class Bad(NamedTuple):
    """A cell that did not end well."""

    cell: str
    status: str
    reason: str | None

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


def print_table(
    console: Console,
    title: str,
    header: Iterable[str],
    rows: Iterable[Iterable[object]],
    fold: bool = False,
) -> None:
    """Print a table of plain text, whose first column is never broken.

    Args:
        console: where to.
        title: above it.
        header: of each column.
        rows: what they hold; one of a single cell heads those after it.
        fold: also words may be broken, where the table is too wide; else the lines become longer.
    """
    names, *texts = [[printable(str(cell)) for cell in row] for row in (header, *rows)]
    blank = [""] * (len(names) - 1)
    lines = [names, *(row + blank if len(row) == 1 else row for row in texts)]
    between = 3 * len(names) + 1
    room = console.width if console.is_terminal else max(console.width, WIDE)
    widths = _widths([*zip(*lines, strict=True)], room - between, fold)
    heading = Text(printable(title), style="table.title")
    table = Table(title=heading, title_justify="left", width=sum(widths) + between)
    for name, width in zip(names, widths, strict=True):
        table.add_column(Text(name), width=width, overflow="fold")
    for row, line in zip(texts, lines[1:], strict=True):
        if len(row) == 1:
            table.add_section()
        table.add_row(*map(Text, line), style="bold" if len(row) == 1 else None)
    console.print(table, crop=False)


def _widths(columns: Sequence[Sequence[str]], room: int, fold: bool) -> list[int]:
    """How wide columns are made to fit into a room: the widest give way, but for the first, and for
    their longest words where these are not to be broken."""
    widths = [max(map(cell_len, texts)) for texts in columns]
    longest_words = [max(map(cell_len, " ".join(texts).split()), default=0) for texts in columns]
    least = [widths[0], *([1] * len(columns) if fold else longest_words)[1:]]
    while sum(widths) > room:
        loose = [(width, place) for place, width in enumerate(widths) if width > least[place]]
        if not loose:
            break
        _, widest = max(loose)
        widths[widest] -= 1
    return widths


def print_frames(
    table: "pd.DataFrame",
    frame_of: "Callable[[pd.DataFrame, str], pd.DataFrame]",
    console: Console,
) -> None:
    """What `frame_of` makes of each task of a results table."""
    for task in sorted(table["task"].unique()):
        frame = frame_of(table, task)
        if not frame.empty:
            print_table(console, task, ("", *frame.columns), frame.itertuples())


def print_line(console: Console, line: str) -> None:
    """A line as it is: neither broken nor coloured, and ":100:" is no emoji."""
    console.print(printable(line), soft_wrap=True, markup=False, highlight=False, emoji=False)


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
