"""Whatever goes wrong in a cell becomes its row."""

from pathlib import Path

import pandas as pd
import pytest

from bench import runner
from bench.cells import Planned
from bench.profiles import Profile
from tests.bench.conftest import cell_of


@pytest.fixture
def execution(tmp_path: Path) -> runner.Execution:
    return runner.Execution(tmp_path, "tiny", None, "cpu", jobs=1, command="test")


def test_a_failure_is_a_row_with_its_place_and_is_tried_again(
    profile: Profile, execution: runner.Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = cell_of(profile, "bitvector", "sfe")
    planned = [Planned(cell, None)]
    real = runner.train_cell

    def broken(*arguments: object, **named: object) -> list[dict[str, object]]:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(runner, "train_cell", broken)
    (outcome,) = runner.run_cells(planned, execution)
    assert outcome.status == "failed"
    row = pd.read_parquet(execution.results / "cells").iloc[0]
    assert row["status"] == "failed"
    assert row["reason"].startswith("ZeroDivisionError: by nought (test_runner.py:")

    monkeypatch.setattr(runner, "train_cell", real)
    seen: list[str] = []
    runner.run_cells(planned, execution, lambda outcome: seen.append(outcome.status))
    runner.run_cells(planned, execution, lambda outcome: seen.append(outcome.status))
    assert seen == ["ok", "stored"]
    assert not (execution.results / "running").exists()


def test_a_skipped_pair_is_a_row(profile: Profile, execution: runner.Execution) -> None:
    cell = cell_of(profile, "ssvae", "sparsemap")
    runner.run_cells([Planned(cell, "because")], execution)
    row = pd.read_parquet(execution.results / "cells").iloc[0]
    assert (row["status"], row["reason"], row["dataset"]) == ("skipped", "because", "digits")
