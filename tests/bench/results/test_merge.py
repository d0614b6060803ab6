"""`run_bench.py merge`: folders that can stand together become one, and no others."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet as pq
import pytest

from analysis.load import load_results
from analysis.schema import CIRCUMSTANCES, GRADIENTS, TIMING, TRAINING
from analysis.stored import JOURNAL, read_cell, read_grid
from bench.cells.cell import Cell
from bench.cells.examples import examples_path
from bench.cells.numerics import NUMERICS
from bench.errors import UserError
from bench.profiles.profile import Profile
from bench.results import merge as module
from bench.results.merge import merge_folders
from bench.results.store import cell_path, compact, note_grid
from tests.bench.conftest import Here, cell_of
from tests.bench.folders import folder_of, store


@pytest.fixture
def cells(profile: Profile) -> list[Cell]:
    return [cell_of(profile, "ssvae", name, seed) for name in ("dense", "sfe") for seed in (0, 1)]


@pytest.fixture
def two(cells: Sequence[Cell], tmp_path: Path) -> list[Path]:
    """Folders of two machines, each with an estimator."""
    return [
        folder_of(tmp_path / "a", cells[:2], command="run_bench.py --estimators dense --out a"),
        folder_of(tmp_path / "b", cells[2:], command="run_bench.py --estimators sfe --out b"),
    ]


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(sources: Sequence[Path], out: Path) -> str:
    """What a merge is refused for, which has to be a line, and nothing written."""
    before = content(out)
    with pytest.raises(UserError) as error:
        merge_folders(sources, out)
    assert content(out) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def status_in(folder: Path, cell: Cell) -> str:
    return str(read_cell(cell_path(folder, cell))["status"][-1].as_py())


def test_folders_become_one_with_a_report(
    here: Here, two: list[Path], cells: Sequence[Cell], tmp_path: Path
) -> None:
    examples_path(two[1], cells[2]).parent.mkdir(parents=True)
    examples_path(two[1], cells[2]).write_bytes(b"examples")
    out = tmp_path / "c"
    done = here("merge", *two, "-o", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == [
        f"2 cells from {two[0]}", f"2 cells from {two[1]}", f"{out}: 4 cells asked for",
    ]  # fmt: skip
    assert set(load_results(out)["key"]) == {cell.key for cell in cells}
    assert pq.read_table(out / "table.parquet").num_rows == 8
    assert {one.key: one.command for one in read_grid(out)}[cells[2].key].endswith("--out b")
    assert "| sfe | 2 |" in (out / "report.md").read_text()
    assert examples_path(out, cells[2]).read_bytes() == b"examples"
    for folder, cell in ((two[0], cells[0]), (two[1], cells[3])):
        assert cell_path(out, cell).read_bytes() == cell_path(folder, cell).read_bytes()


def test_what_is_missing_is_told_with_how_to_go_on(
    here: Here, two: list[Path], cells: Sequence[Cell], tmp_path: Path
) -> None:
    cell_path(two[1], cells[3]).unlink()
    done = here("merge", *two, "--out", tmp_path / "c")
    assert done.returncode == 1
    assert "  ssvae/sfe: missing: 1\n" in done.stdout
    assert f"to go on: python run_bench.py --estimators sfe --out {tmp_path / 'c'}\n" in done.stdout


def test_equal_cells_may_have_been_made_under_other_circumstances(
    two: list[Path], cells: Sequence[Cell], tmp_path: Path
) -> None:
    note_grid(two[1], cells, "run_bench.py")
    store(two[1], cells[0], wall_seconds=77.0, machine="another", commit="f00", dirty=True)
    merged = merge_folders(two, tmp_path / "c")
    assert (merged.taken, merged.twice, merged.better) == ({two[0]: 2, two[1]: 2}, 1, [])
    assert read_cell(cell_path(tmp_path / "c", cells[0]))["machine"].to_pylist() == [None, None]
    assert "1 are in several folders with equal numbers: the first is kept" in merged.lines()


def test_cells_of_unlike_kernels_stand_together_without_being_equal(
    two: list[Path], cells: Sequence[Cell], tmp_path: Path
) -> None:
    note_grid(two[1], cells, "run_bench.py")
    for folder, kernels, loss in zip(two, ("AVX2", "AVX512"), (1.0, 1.1), strict=True):
        store(folder, cells[0], kernels=kernels, loss=loss)
    merged = merge_folders(two, tmp_path / "c")
    assert [line for line in merged.lines() if "cells from" not in line] == [
        "1 are in several folders: the first is kept",
        "cells are of unlike kernels (AVX2; AVX512): they can be compared, but differ in last bits",
    ]
    assert read_cell(cell_path(tmp_path / "c", cells[0]))["loss"].to_pylist() == [1.0, 1.0]
    store(two[1], cells[0], kernels="AVX2", loss=1.1)
    assert "ssvae/dense/0 has loss 1.0 in " in refused(two, tmp_path / "d")


def value_of(name: str, change: bool) -> object:
    """A value for a column of trainings, and another."""
    if name == "hyperparameters":
        return json.dumps({"change": change})
    kind = str(TRAINING.columns.field(name).type)
    values = {"string": "xy"[change], "int64": int(change), "double": change / 7, "bool": change}
    return values[kind]


FIXED = {"key", "seed", "status", "numerics", "schema_version", "reason"}
"""Columns that are told of elsewhere."""


@pytest.mark.parametrize("name", [n for n in TRAINING.columns.names if n not in FIXED])
def test_every_number_counts_and_no_circumstance(
    name: str, two: list[Path], cells: Sequence[Cell], tmp_path: Path
) -> None:
    note_grid(two[1], cells, "run_bench.py")
    for folder, change in zip(two, (False, True), strict=True):
        store(folder, cells[0], **{name: value_of(name, change)})
    if name in CIRCUMSTANCES:
        assert merge_folders(two, tmp_path / "c").twice == 1
        return
    one, other = (value_of(name, change) for change in (False, True))
    assert refused(two, tmp_path / "c") == (
        f"ssvae/dense/0 has {name} {one} in {two[0]} and {other} in {two[1]}: it must be the same; "
        f"delete {cell_path(two[1], cells[0])}, or the other one"
    )


def test_the_circumstances_are_columns() -> None:
    names = {name for kind in (TRAINING, GRADIENTS, TIMING) for name in kind.columns.names}
    assert names >= CIRCUMSTANCES


def test_a_cell_with_fewer_rows_is_another(
    two: list[Path], cells: Sequence[Cell], tmp_path: Path
) -> None:
    note_grid(two[1], cells, "run_bench.py")
    path = store(two[1], cells[0])
    pq.write_table(pq.read_table(path, partitioning=None).slice(1), path)
    assert f"ssvae/dense/0 has 2 rows in {two[0]} and 1 in {two[1]}" in refused(two, tmp_path / "c")


@pytest.mark.parametrize("status", ["failed", "diverged", "timeout", "skipped"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_cell_that_is_ok_counts_before_one_that_is_not(
    first: int, status: str, two: list[Path], cells: Sequence[Cell], tmp_path: Path
) -> None:
    note_grid(two[1], cells, "run_bench.py")
    store(two[first], cells[0], status)
    store(two[1 - first], cells[0])
    merged = merge_folders(two, tmp_path / "c")
    assert status_in(tmp_path / "c", cells[0]) == "ok"
    assert merged.better == ([] if first else ["ssvae/dense/0"])
    line = "ok in a later folder alone, and taken from there: ssvae/dense/0"
    assert (line in merged.lines()) == (not first)


def test_of_two_that_are_not_ok_the_first_is_kept(
    two: list[Path], cells: Sequence[Cell], tmp_path: Path
) -> None:
    note_grid(two[1], cells, "run_bench.py")
    store(two[0], cells[0], "failed")
    store(two[1], cells[0], "timeout")
    merge_folders(two, tmp_path / "c")
    assert status_in(tmp_path / "c", cells[0]) == "failed"


@pytest.mark.parametrize("after", range(5))  # four cells, and examples of one
def test_a_merge_that_was_interrupted_ends_right_when_it_is_run_again(
    after: int,
    two: list[Path],
    cells: Sequence[Cell],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After any number of files; and what there is meanwhile is no misread result."""
    examples_path(two[0], cells[0]).parent.mkdir(parents=True)
    examples_path(two[0], cells[0]).write_bytes(b"examples")
    merge_folders(two, tmp_path / "whole")
    files = 0
    copy = module.shutil.copyfileobj

    def stops(source: IO[bytes], target: IO[bytes]) -> None:
        nonlocal files
        files += 1
        if files > after:
            target.write(source.read(10))
            raise KeyboardInterrupt
        copy(source, target)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "copyfileobj", stops)
        with pytest.raises(KeyboardInterrupt):
            merge_folders(two, out)
    assert {path.name for path in out.rglob("*") if path.is_file()} <= {
        path.name for path in (tmp_path / "whole").rglob("*")
    }
    merge_folders(two, out)
    assert content(out) == content(tmp_path / "whole")


def test_a_merge_again_takes_what_has_come_and_keeps_what_was_mended(
    two: list[Path], cells: Sequence[Cell], tmp_path: Path
) -> None:
    out = tmp_path / "c"
    store(two[0], cells[0], "failed")
    later = cell_path(two[1], cells[3])
    later.unlink()
    merge_folders(two, out)
    assert not cell_path(out, cells[3]).exists()
    store(out, cells[0])  # a run in the merged folder
    store(two[1], cells[3])
    merge_folders(two, out)
    assert [status_in(out, cell) for cell in cells] == ["ok"] * 4


def test_a_folder_that_holds_something_else_is_left_alone(
    two: list[Path], cells: Sequence[Cell], profile: Profile, tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    assert "holds something else: give a new folder" in refused(two, tmp_path / "notes")
    other = folder_of(tmp_path / "other", [cell_of(profile, "bitvector", "sfe")])
    assert f"--out {other} holds bitvector/sfe/0, which is in none of these" in refused(two, other)
    merge_folders(two, tmp_path / "c")
    stray = store(tmp_path / "c", replace(cells[0], seed=5))
    assert f"holds {stray}, which is in none of these" in refused(two, tmp_path / "c")
    for source in two:
        assert f"--out {source} is one of the folders to merge" in refused(two, source)
    (tmp_path / "empty").mkdir()
    merge_folders(two, tmp_path / "empty")


def changed(cell: Cell, part: str, **values: Any) -> Cell:
    """A cell with other settings."""
    return replace(cell, **{part: getattr(cell, part) | values})


def test_cells_that_cannot_stand_together_are_named(
    cells: Sequence[Cell], profile: Profile, tmp_path: Path
) -> None:
    one = folder_of(tmp_path / "one", cells[:2])
    longer = folder_of(tmp_path / "longer", [changed(cells[3], "training", epochs=7)])
    assert refused([one, longer], tmp_path / "c") == (
        f"ssvae/sfe/1 in {longer} can't stand beside ssvae/dense/0 in {one}: other data, model, "
        "budget of training, or evaluation"
    )
    faster = folder_of(tmp_path / "faster", [changed(cells[1], "training", learning_rate=0.5)])
    assert refused([one, faster], tmp_path / "c") == (
        f"ssvae/dense/1 has other settings, threads or device in {faster} than in {one}: keep them "
        "in two folders"
    )
    threads = folder_of(tmp_path / "threads", [replace(cells[1], threads=2)])
    assert "ssvae/dense/1 has other settings, threads or device" in refused(
        [one, threads], tmp_path / "c"
    )
    earlier = tmp_path / "earlier"
    note_grid(earlier, cells[2:], "run_bench.py")
    store(earlier, cells[2], numerics=1)
    words = refused([one, earlier], tmp_path / "c")
    assert words.startswith(f"ssvae/sfe/0 in {earlier} is of numerics 1, ssvae/dense/")
    assert words.endswith(f" in {one} of {NUMERICS}: run the older ones again")


def test_kinds_are_not_mixed(cells: Sequence[Cell], tmp_path: Path) -> None:
    one = folder_of(tmp_path / "one", cells[:2])
    how = {"settings": {}, "model": {}, "knob": {}}
    other = folder_of(tmp_path / "other", [replace(cells[2], gradients=how)])
    words = f"{one} holds training and {other} gradients: keep them in two"
    assert refused([one, other], tmp_path / "c") == words
    again = folder_of(tmp_path / "again", [replace(cells[3], gradients=how)])
    assert merge_folders([other, again], tmp_path / "c").kind == "gradients"
    (one / JOURNAL).touch()
    assert f"{one} holds a search: machines share one" in refused([one, other], tmp_path / "d")


def test_mistakes_are_told_in_a_line(
    here: Here, two: list[Path], cells: Sequence[Cell], tmp_path: Path
) -> None:
    nowhere, table, out = tmp_path / "nowhere", tmp_path / "table", tmp_path / "c"
    table.mkdir()
    compact(two[0]).rename(table / "table.parquet")
    for name in ("planned", "too"):
        note_grid(tmp_path / name, cells, "run_bench.py")
    damaged = cell_path(folder_of(tmp_path / "damaged", cells), cells[0])
    damaged.write_bytes(b"PAR1")
    note_grid(tmp_path / "newer", cells, "run_bench.py")
    store(tmp_path / "newer", cells[0], schema_version=99)
    for arguments, words in (
        ([two[0], "-o", out], "merge: give two results folders at least"),
        (two, "--out requires an argument"),
        ([two[0], nowhere, "-o", out], f"there is no folder {nowhere}"),
        ([*two, "-o", "README.md"], "--out README.md is a file: give a folder"),
        ([two[0], table, "-o", out], f"{table} has no grid.json, which says"),
        ([two[0], two[0] / ".." / two[0].name, "-o", out], "give two results folders at least"),
        ([tmp_path / "planned", tmp_path / "too", "-o", out], "none of these folders holds a cell"),
        ([two[0], tmp_path / "damaged", "-o", out], f"{damaged} is damaged: delete it, and run"),
        ([two[0], tmp_path / "newer", "-o", out], "has results of schema 99, this is"),
    ):
        done = here("merge", *arguments)
        assert done.returncode == 2, words
        assert words in done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert not done.stdout
        assert not out.exists()


def test_a_cell_of_the_schema_before_has_the_numbers_of_a_newer_one(
    two: list[Path], cells: Sequence[Cell], tmp_path: Path
) -> None:
    """It says nothing of columns that it does not have, and all of the others count."""
    note_grid(two[1], cells, "run_bench.py")
    store(two[1], cells[0], slopes=0.0, slopes_total=0, loss=1.0)
    added = TRAINING.added[TRAINING.version]
    for loss, there in ((1.0, True), (2.0, False)):
        path = store(two[0], cells[0], schema_version=TRAINING.version - 1, loss=loss)
        pq.write_table(pq.read_table(path, partitioning=None).drop_columns([*added]), path)
        if there:
            assert merge_folders(two, tmp_path / "c").twice == 1
        else:
            assert refused(two, tmp_path / "d").startswith("ssvae/dense/0 has loss 2.0 in ")


def test_cells_of_the_schema_before_are_joined_too(
    two: list[Path], cells: Sequence[Cell], tmp_path: Path
) -> None:
    path = store(two[0], cells[0], schema_version=TRAINING.version - 1)
    added = TRAINING.added[TRAINING.version]
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns([*added]), path)
    out = tmp_path / "c"
    merge_folders(two, out)
    assert set(load_results(out)["key"]) == {cell.key for cell in cells}
    compact(out).rename(tmp_path / "table.parquet")
    assert len(load_results(tmp_path)) == len(load_results(out))
