"""Tables where there is little room: nothing of them is lost."""

from io import StringIO

import pytest
from rich.console import Console

from bench.printing import WIDE, print_line, print_table

HEADER = ("", *(f"metric {n} (nats)" for n in range(4)), "settings")
ROWS = [
    (name, *(f"-{1e6 + n:.4f} ± {n / 7:.4f}" for n in range(4)), f"learning_rate={name} samples=1")
    for name in ("sum-and-sample", "sfe")
]


def printed(terminal: bool, width: int, fold: bool) -> list[str]:
    """The lines of a table on a console of some width."""
    console = Console(file=StringIO(), force_terminal=terminal, width=width, color_system=None)
    print_table(console, "", HEADER, ROWS, fold=fold)
    file = console.file
    assert isinstance(file, StringIO)
    return file.getvalue().splitlines()


def test_text_is_printed_as_it_is() -> None:
    """No emoji takes the place of a line's number."""
    text = "[b]loss.py:100: bad"
    console = Console(file=StringIO(), width=80)
    print_line(console, text)
    print_table(console, text, ("", text), [(text, text)])
    file = console.file
    assert isinstance(file, StringIO)
    assert file.getvalue().count(text) == 5


def test_no_text_of_results_gives_the_terminal_orders() -> None:
    console = Console(file=StringIO(), width=80)
    text = "a\x1b[2Jb\x07"
    print_line(console, text)
    print_table(console, text, ("", text), [(text, text)])
    file = console.file
    assert isinstance(file, StringIO)
    assert file.getvalue().count("a\\x1b[2Jb\\x07") == 5
    assert "\x1b[2J" not in file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [40, 80, 150])
def test_words_of_results_are_whole_however_narrow_the_console(terminal: bool, width: int) -> None:
    found = " ".join(printed(terminal, width, fold=False)).split()
    for text in [*HEADER, *(cell for row in ROWS for cell in row)]:
        assert {*text.split()} <= {*found}


def test_words_are_folded_where_they_may_be_and_none_is_cut() -> None:
    lines = printed(terminal=True, width=80, fold=True)
    assert max(map(len, lines)) == 80
    columns = zip(*(line.split("│")[1:-1] for line in lines if "│" in line), strict=True)
    found = ["".join(column).replace(" ", "") for column in columns]
    assert found == ["".join(column).replace(" ", "") for column in zip(*ROWS, strict=True)]


def test_a_row_of_one_cell_heads_those_after_it() -> None:
    console = Console(file=StringIO(), width=80, color_system=None)
    print_table(console, "", ("name", "number"), [("odd:",), ("one", 1), ("even:",), ("two", 2)])
    file = console.file
    assert isinstance(file, StringIO)
    shown = [line.replace("│", "").split() for line in file.getvalue().splitlines()[3:-1]]
    rule = "├───────┼────────┤"
    assert shown == [["odd:"], ["one", "1"], [rule], ["even:"], ["two", "2"]]


def test_what_is_no_terminal_has_room_for_a_row_on_a_line() -> None:
    lines = printed(terminal=False, width=80, fold=False)
    (line,) = [line for line in lines if "sfe" in line]
    assert all(cell in line for cell in ROWS[1])
    assert 80 < len(line) <= WIDE
