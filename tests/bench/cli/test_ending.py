"""The end of a run, in a folder that other runs may share."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import report
from bench.cells.cell import Cell
from bench.cli.ending import report_on
from bench.grid.claims import GRID_CLAIM, is_claimed
from bench.profiles.profile import Profile
from tests.bench.conftest import Here, cell_of
from tests.bench.folders import folder_of


@pytest.fixture
def cell(profile: Profile) -> Cell:
    return cell_of(profile, "ssvae", "sfe")


def watching(seen: list[bool]) -> Callable[..., Path]:
    """A writer of the page that notes whether the folder is claimed."""

    def write(folder: Path, *parts: object) -> Path:
        seen.append(is_claimed(folder / "running" / GRID_CLAIM))
        return folder / "report.html"

    return write


def test_runs_that_end_at_the_same_time_report_one_by_one(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each removes figures that are to be drawn anew, and reads them again for its page."""
    folder = folder_of(tmp_path, [cell])
    writing, most, lock = 0, 0, threading.Lock()

    def write(folder: Path) -> list[Path]:
        nonlocal writing, most
        with lock:
            writing += 1
            most = max(most, writing)
        threading.Event().wait(0.2)
        with lock:
            writing -= 1
        return [folder / "report.md"]

    monkeypatch.setattr(report, "write_report", write)
    threads = [
        threading.Thread(target=report_on, args=(folder, "training", None)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == 1
    assert not (folder / "running").exists()


def test_whoever_writes_a_report_claims_the_folder(
    here: Here, cell: Cell, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder_of(tmp_path / "results", [cell])
    seen: list[bool] = []
    monkeypatch.setattr(report, "write_page", watching(seen))
    grid = ("--tasks", "ssvae", "--estimators", "sfe", "--seeds", 1)
    for command in (("--profile", tiny, *grid, "--out", out), ("report", out)):
        done = here(*command)
        assert done.returncode == 0, done.stderr
    assert seen == [True, True]
    assert not (out / "running").exists()


def test_a_report_that_fails_costs_neither_the_exit_code_nor_the_table(
    here: Here, cell: Cell, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder_of(tmp_path / "results", [cell])

    def fail(*arguments: object) -> None:
        raise ValueError("no\nfont")

    monkeypatch.setattr(report, "save_figures", fail)
    grid = ("--tasks", "ssvae", "--estimators", "sfe", "--seeds", 1)
    done = here("--profile", tiny, *grid, "--out", out)
    assert done.returncode == 0
    assert done.stderr == (
        "the report failed (ValueError: no font); to write it again: "
        f"python run_bench.py report {out}\n"
    )
    assert "0.500" in done.stdout
    assert "tables and figures" not in done.stdout
    again = here("--profile", tiny, *grid, "--out", out, "--json")
    *_, end = map(json.loads, again.stdout.splitlines())
    assert end["report"] is None


def test_figures_are_drawn_without_the_backend_of_the_users(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may not be there: matplotlib could not be imported."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    assert here("env").returncode == 0
    assert os.environ["MPLBACKEND"] == "agg"


def test_a_report_on_a_folder_that_is_not_there_makes_none(here: Here, tmp_path: Path) -> None:
    assert here("report", tmp_path / "nothing").returncode == 2
    assert not (tmp_path / "nothing").exists()


def test_a_grid_whose_time_ends_before_any_cell_has_begun_tells_its_cells(
    here: Here, tiny: Path, tmp_path: Path
) -> None:
    """There is nothing to report on then, in a new folder or beside cells of another grid."""
    out = tmp_path / "results"
    grid = ("--profile", tiny, "--tasks", "bitvector", "--out", out, "--jobs", 1)
    two = (*grid, "--estimators", "sfe,dense", "--seeds", 1)
    done = here(*two, "--grid-time-limit", 1e-6)
    assert (done.returncode, done.stderr) == (1, "")
    assert "2 cells:\n  2 timeout\n" in done.stdout
    assert "tables and figures" not in done.stdout
    again = here(*two, "--grid-time-limit", 1e-6, "--json")
    *_, end = map(json.loads, again.stdout.splitlines())
    assert end == {
        "event": "end", "cells": 2, "counts": {"timeout": 2}, "results": str(out), "report": None,
    }  # fmt: skip
    assert here("report", out).stderr.startswith(
        f"error: {out} holds no results: first run python run_bench.py --profile {tiny} "
    )
    assert here(*two).returncode == 0
    tiny.write_text(tiny.read_text().replace("bits = 4", "bits = 3"))
    other = here(*two, "--grid-time-limit", 1e-6)
    assert (other.returncode, other.stderr) == (1, "")
    assert "tables and figures" not in other.stdout
