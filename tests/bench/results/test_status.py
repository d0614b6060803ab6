"""`run_bench.py status`: what is done, stale, failed, missing, and how to go on."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analysis.stored import JOURNAL, ResultsError, into
from bench.cells.cell import Cell
from bench.grid.claims import GRID_CLAIM, claimed
from bench.grid.runner import progress_file
from bench.profiles.profile import Profile
from bench.results import status as module
from bench.results.status import status_of
from bench.results.store import cell_path, compact, note_grid
from tests.bench.conftest import Here, cell_of
from tests.bench.folders import folder_of, store

COMMAND = "run_bench.py --tasks ssvae --out somewhere --seeds 2"


@pytest.fixture
def cells(profile: Profile) -> list[Cell]:
    return [cell_of(profile, "ssvae", name, seed) for name in ("dense", "sfe") for seed in (0, 1)]


def states(folder: Path) -> dict[str, str]:
    return {one.cell: one.state for one in status_of(folder).states}


def lines(here: Here, folder: Path) -> tuple[int, list[str]]:
    """The exit code, and what is written after the table."""
    done = here("status", folder)
    assert not done.stderr
    return done.returncode, done.stdout.split("┘\n")[1].splitlines()


def test_a_folder_with_everything_is_done(
    here: Here, cells: Sequence[Cell], tmp_path: Path
) -> None:
    folder_of(tmp_path, cells)
    store(tmp_path, cells[1], "skipped")
    assert lines(here, tmp_path) == (
        0, [f"all done; for tables and figures: python run_bench.py report {tmp_path}"],
    )  # fmt: skip
    table = here("status", tmp_path).stdout
    assert f"{tmp_path}: 4 cells asked for" in table
    assert "│ ssvae/dense │ 1  │ 1       │" in table
    assert "│ ssvae/sfe   │ 2  │         │" in table


def test_cells_of_other_kernels_are_told(here: Here, cells: Sequence[Cell], tmp_path: Path) -> None:
    folder_of(tmp_path, cells)
    store(tmp_path, cells[0], kernels="AVX2")
    assert not [line for line in lines(here, tmp_path)[1] if "unlike" in line]
    store(tmp_path, cells[1], kernels="AVX512")
    assert lines(here, tmp_path)[1][0] == (
        "cells are of unlike kernels (AVX2; AVX512): they can be compared, but differ in last bits"
    )


def test_commands_are_quoted_for_a_shell(here: Here, cells: Sequence[Cell], tmp_path: Path) -> None:
    spaced = tmp_path / "it's mine"
    folder_of(spaced, cells)
    assert lines(here, spaced)[1] == [
        f"all done; for tables and figures: python run_bench.py report {shlex.quote(str(spaced))}"
    ]
    (tmp_path / "a b").mkdir()
    said = here("report", tmp_path / "a b").stderr
    assert said.endswith(f" holds no results: first run a grid with --out '{tmp_path / 'a b'}'\n")


def test_everything_that_is_not_well_is_named_with_its_reason(
    here: Here, cells: Sequence[Cell], tmp_path: Path
) -> None:
    note_grid(tmp_path, cells, COMMAND)
    store(tmp_path, cells[0], "failed")
    store(tmp_path, cells[1], "timeout")
    damaged = store(tmp_path, cells[2])
    damaged.write_bytes(b"PAR1 and no more")
    assert lines(here, tmp_path) == (
        1,
        [
            "  ssvae/dense/0: failed: because of this",
            "  ssvae/dense/1: timeout: because of this",
            f"  ssvae/sfe/0: damaged: {damaged} is damaged: delete it, and run the same command to "
            "make it again",
            "  ssvae/sfe: missing: 1",
            f"to go on: python run_bench.py --tasks ssvae --seeds 2 --out {tmp_path}",
        ],
    )


@pytest.mark.parametrize("status", ["failed", "diverged", "timeout"])
def test_a_status_that_is_not_well_is_the_exit_code(
    status: str, here: Here, cells: Sequence[Cell], tmp_path: Path
) -> None:
    folder_of(tmp_path, cells)
    store(tmp_path, cells[3], status)
    assert here("status", tmp_path).returncode == 1


def test_what_runs_is_shown_with_its_share(
    here: Here, cells: Sequence[Cell], tmp_path: Path
) -> None:
    note_grid(tmp_path, cells, COMMAND)
    store(tmp_path, cells[1], "failed")
    store(tmp_path, cells[2])
    with (
        claimed(progress_file(tmp_path, cells[0])) as report,
        claimed(progress_file(tmp_path, cells[1])),
        claimed(tmp_path / "running" / GRID_CLAIM),
    ):
        assert report is not None
        progress_file(tmp_path, cells[0]).write_text("0.4321")
        progress_file(tmp_path, cells[1]).write_text("")  # half written
        progress_file(tmp_path, cells[2]).write_text("0.9")  # left by a run that was killed
        code, written = lines(here, tmp_path)
        assert states(tmp_path)["ssvae/sfe/0"] == "ok"
    assert code == 1
    assert written[:3] == [
        "  ssvae/dense/0: running: 43%",
        "  ssvae/dense/1: running",
        "  ssvae/sfe: missing: 1",
    ]


def test_cells_of_other_numerics_or_schema_are_stale(
    cells: Sequence[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path, cells)
    store(tmp_path, cells[0], numerics=1)
    store(tmp_path, cells[1], schema_version=99)
    found = {one.cell: one for one in status_of(tmp_path).open}
    assert found.keys() == {"ssvae/dense/0", "ssvae/dense/1"}
    assert {one.state for one in found.values()} == {"stale"}
    assert found["ssvae/dense/0"].reason == f"of numerics 1, this is {module.NUMERICS}"
    assert "has results of schema 99, this is" in str(found["ssvae/dense/1"].reason)
    monkeypatch.setattr(module, "NUMERICS", module.NUMERICS + 1)
    assert set(states(tmp_path).values()) == {"stale"}


def test_what_is_not_asked_for_any_more_is_counted(
    here: Here, cells: Sequence[Cell], tmp_path: Path
) -> None:
    folder_of(tmp_path, [replace(cells[0], training=cells[0].training | {"learning_rate": 0.5})])
    folder_of(tmp_path, cells)
    code, written = lines(here, tmp_path)
    assert code == 0
    assert written[0] == "1 stored cells are not asked for any more, and are kept"
    stray = store(tmp_path, replace(cells[0], seed=77))
    stray.write_bytes(b"PAR1")
    code, written = lines(here, tmp_path)
    assert code == 1  # a run would refuse the folder
    assert written[0].startswith(f"  ssvae/dense/{stray.stem}: damaged: {stray} is damaged: delete")


def test_a_cell_in_the_folder_of_another_pair_is_named(
    here: Here, cells: Sequence[Cell], tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "results", cells)
    right = cell_path(folder, cells[0])
    wrong = right.parents[2] / "task=foo" / "estimator=bar" / right.name
    wrong.parent.mkdir(parents=True)
    right.rename(wrong)
    said = f"error: {wrong} belongs in {right.parent}: move it there\n"
    for command in (("status", folder), ("report", folder), ("merge", folder, tmp_path, "-o", "x")):
        done = here(*command)
        assert (done.returncode, done.stderr) == (2, said), command


def test_the_settings_that_were_turned_are_told_apart(
    here: Here, cells: Sequence[Cell], tmp_path: Path
) -> None:
    how: dict[str, object] = {"settings": {}, "model": {}}
    turned = [replace(cells[0], gradients=how | {"knob": knob}) for knob in ({}, {"samples": 4})]
    note_grid(tmp_path, turned, "run_bench.py gradients")
    store(tmp_path, turned[0])
    code, written = lines(here, tmp_path)
    assert code == 1
    assert written == [
        "  ssvae/dense: missing: 0 samples=4",
        f"to go on: python run_bench.py gradients --out {tmp_path}",
    ]


def test_each_command_that_has_something_left_is_told_once(
    cells: Sequence[Cell], tmp_path: Path, here: Here
) -> None:
    note_grid(tmp_path, cells[:2], "run_bench.py --estimators dense")
    note_grid(tmp_path, cells[2:3], "run_bench.py --estimators sfe --out 'a b'")
    note_grid(tmp_path, cells[3:], "run_bench.py --estimators sfe --out 'a b' --force")
    assert lines(here, tmp_path)[1][-2:] == [
        f"to go on: python run_bench.py --estimators dense --out {tmp_path}",
        f"to go on: python run_bench.py --estimators sfe --out {tmp_path}",
    ]
    for cell in cells[2:]:
        store(tmp_path, cell)
    assert lines(here, tmp_path)[1][-1:] == [
        f"to go on: python run_bench.py --estimators dense --out {tmp_path}"
    ]


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("took more than 9 s (--time-limit)", "--grid-time-limit 1h --max-memory 2G"),
        ("needs more memory than --max-memory allows: x", "--time-limit 9 --grid-time-limit 1h"),
        ("because of this", "--time-limit 9 --grid-time-limit 1h --max-memory 2G"),
    ],
)
def test_a_limit_that_ended_a_cell_is_left_out_of_the_command(
    cells: Sequence[Cell], tmp_path: Path, here: Here, reason: str, kept: str
) -> None:
    limits = "--time-limit 9 --grid-time-limit 1h --max-memory 2G"
    folder_of(tmp_path, cells, command=f"run_bench.py {limits}")
    store(tmp_path, cells[0], "failed", reason=reason)
    assert lines(here, tmp_path)[1][-1] == f"to go on: python run_bench.py {kept} --out {tmp_path}"


def test_a_grid_of_an_earlier_version_names_the_command_of_its_cells(
    cells: Sequence[Cell], tmp_path: Path, here: Here
) -> None:
    folder_of(tmp_path, cells)
    path = tmp_path / "grid.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([{n: v for n, v in e.items() if n != "command"} for e in entries]))
    store(tmp_path, cells[0], "failed", command="run_bench.py --jobs 3")
    assert (
        lines(here, tmp_path)[1][-1] == f"to go on: python run_bench.py --jobs 3 --out {tmp_path}"
    )
    for file in tmp_path.rglob("*.parquet"):
        file.unlink()
    assert lines(here, tmp_path)[1][-1] == "to go on: the command that began it"


def test_a_search_tells_what_is_stored(here: Here, cells: Sequence[Cell], tmp_path: Path) -> None:
    """Which trials there are to be stands in its studies alone."""
    for number, status in enumerate(("ok", "pruned", "diverged")):
        store(tmp_path, replace(cells[0], seed=10_000 + number), status)
    (tmp_path / JOURNAL).touch()
    with claimed(progress_file(tmp_path, cells[1])):
        progress_file(tmp_path, cells[1]).write_text("0.5")
        done = here("status", tmp_path)
    assert f"{tmp_path}: 4 trials' cells" in done.stdout
    assert "│ ssvae/dense │ 1  │ 1      │ 1        │         │" in done.stdout
    assert f"?/?/{cells[1].key}: running: 50%" in done.stdout
    assert "a search goes on by the command that began it" in done.stdout
    store(tmp_path, cells[1], "timeout")
    assert here("status", tmp_path).returncode == 0  # all of them are over
    store(tmp_path, cells[2], "failed")
    assert "ssvae/sfe/0: failed: because of this" in here("status", tmp_path).stdout


def test_a_table_without_its_cells_is_read(
    here: Here, cells: Sequence[Cell], tmp_path: Path
) -> None:
    folder_of(tmp_path / "whole", cells)
    table = pq.read_table(compact(tmp_path / "whole"), partitioning=None)
    pq.write_table(table, tmp_path / "table.parquet")
    assert states(tmp_path) == dict.fromkeys((cell.name for cell in cells), "ok")
    assert here("status", tmp_path).returncode == 0


def test_a_folder_without_results_is_a_mistake(here: Here, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for folder, said in (
        (tmp_path, f"{tmp_path} holds no results: first run a grid with --out {tmp_path}"),
        (nowhere, f"there is no folder {nowhere}"),
    ):
        done = here("status", folder)
        assert done.returncode == 2
        assert done.stderr == f"error: {said}\n"
    (tmp_path / "grid.json").write_text("[")
    with pytest.raises(ResultsError, match=r"grid\.json is damaged"):
        status_of(tmp_path)


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("run_bench.py", "python run_bench.py --out 'a b'"),
        ("run_bench.py --out x --jobs 2", "python run_bench.py --jobs 2 --out 'a b'"),
        ("run_bench.py --out=x gradients", "python run_bench.py gradients --out 'a b'"),
        (
            "run_bench.py --profile 'my own.toml'",
            "python run_bench.py --profile 'my own.toml' --out 'a b'",
        ),
        ("run_bench.py --out", "python run_bench.py --out 'a b'"),
        ("run_bench.py --out it's", "run_bench.py --out it's"),
        ("run_bench.py --force --retry 0 --jobs 2", "python run_bench.py --jobs 2 --out 'a b'"),
        ("run_bench.py --json --seeds 2 --quiet", "python run_bench.py --seeds 2 --out 'a b'"),
        (
            "run_bench.py --retry=0 --seeds 2 --force=true",
            "python run_bench.py --seeds 2 --out 'a b'",
        ),
    ],
)
def test_a_command_is_told_for_the_folder_that_was_asked_about(command: str, found: str) -> None:
    assert into(command, Path("a b")) == found
