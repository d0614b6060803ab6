"""Files are written whole or not at all, whoever else writes them."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis import files
from analysis.figures import save_figure
from analysis.files import write_whole, written_whole
from analysis.report import write_report
from tests.analysis.synthetic import grid, write


def test_two_who_write_a_file_at_once_do_not_share_a_temporary_one(tmp_path: Path) -> None:
    """Not even where they have the same process number, as on two machines."""
    path = tmp_path / "file"
    with written_whole(path) as first:
        first.write(b"first")
        with written_whole(path) as second:
            second.write(b"2")
        assert path.read_bytes() == b"2"
    assert path.read_bytes() == b"first"
    assert [*tmp_path.iterdir()] == [path]


def test_a_figure_for_which_there_is_no_space_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/some.pdf'"):
        save_figure(Figure(), tmp_path / "some")
    assert not [*tmp_path.iterdir()]


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_whole(path, "α")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert path.read_bytes() == "α".encode()
    assert [*tmp_path.iterdir()] == [path]


def test_what_cannot_be_replaced_is_named_by_its_own_path(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        write_whole(path, "α")
    assert raised.value.filename == str(path)
    assert [*tmp_path.iterdir()] == [path]


def test_reports_and_tables_are_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser may load a report again at any time."""
    table: pd.DataFrame = grid(["game"], ["sfe"], 1)
    folder = write(table, tmp_path / "results")
    seen = set()

    def watched(path: Path) -> AbstractContextManager[IO[bytes]]:
        seen.add(path.name)
        return written_whole(path)

    monkeypatch.setattr(files, "written_whole", watched)
    write_report(folder)
    assert seen == {"report.md", "report.html", "game.md", "game.tex", "game.csv"}
