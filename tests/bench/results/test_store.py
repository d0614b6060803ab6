"""Storage: schema, partitions, atomic writes."""

from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from analysis.schema import GRADIENTS, REQUIRED, TRAINING
from analysis.stored import ResultsError, read_grid
from bench.cells.cell import Cell
from bench.profiles.profile import Profile
from bench.results import store
from tests.bench.conftest import cell_of


@pytest.fixture
def cell(profile: Profile) -> Cell:
    return cell_of(profile, "ssvae", "sfe")


def row(cell: Cell, **values: object) -> dict[str, object]:
    return {"key": cell.key, "seed": cell.seed, "status": "ok", **values}


def test_a_cell_is_read_back_by_pandas_with_its_partitions(tmp_path: Path, cell: Cell) -> None:
    store.write_cell(tmp_path, cell, [row(cell, step=0), row(cell, step=1, accuracy=0.5)])
    table = pd.read_parquet(tmp_path / "cells")
    assert table["task"].tolist() == ["ssvae", "ssvae"]
    assert table["estimator"].tolist() == ["sfe", "sfe"]
    assert table["accuracy"].iloc[1] == 0.5
    assert pq.read_schema(store.cell_path(tmp_path, cell)).equals(TRAINING.columns)
    assert store.stored_status(tmp_path, cell) == "ok"


def test_the_table_holds_all_cells(tmp_path: Path, cell: Cell, profile: Profile) -> None:
    other = cell_of(profile, "bitvector", "dense")
    store.write_cell(tmp_path, cell, [row(cell)])
    store.write_cell(tmp_path, other, [row(other, step=0), row(other, step=1)])
    path = store.compact(tmp_path)
    assert sorted(pd.read_parquet(path)["task"]) == ["bitvector", "bitvector", "ssvae"]


def note(folder: Path, *cells: Cell) -> None:
    store.note_grid(folder, cells, "run_bench.py")


def asked(folder: Path) -> set[str]:
    return {one.key for one in read_grid(folder)}


def test_a_folder_shows_all_that_can_stand_side_by_side(tmp_path: Path, profile: Profile) -> None:
    """Another estimator joins the table; the same one with other settings takes its place; another
    budget, model or data set begins a table of its own, of its task."""

    def cell(task: str, name: str, **training: object) -> Cell:
        found = cell_of(profile, task, name)
        return replace(found, training=found.training | training)

    sfe, dense, game = cell("ssvae", "sfe"), cell("ssvae", "dense"), cell("signal_game", "sfe")
    note(tmp_path, sfe, game)
    note(tmp_path, dense)
    assert asked(tmp_path) == {sfe.key, game.key, dense.key}
    faster = cell("ssvae", "sfe", learning_rate=0.5)
    note(tmp_path, faster)
    assert asked(tmp_path) == {faster.key, game.key, dense.key}
    longer = cell("ssvae", "dense", epochs=7)
    note(tmp_path, longer)
    assert asked(tmp_path) == {longer.key, game.key}
    note(tmp_path, sfe, dense)
    assert asked(tmp_path) == {sfe.key, dense.key, game.key}


@pytest.mark.parametrize(
    "change",
    [
        {"dataset_digest": "other"},
        {"task_settings": {"dataset": "digits", "labelled": 3}},
        {"evaluation": {"samples": 3}},
        {"gradients": {"settings": {}, "model": {}, "knob": {"samples": 4}}},
    ],
)
def test_what_cannot_be_compared_has_another_basis(cell: Cell, change: dict[str, Any]) -> None:
    assert replace(cell, **change).basis != cell.basis
    own = {"batch_size": 16, "learning_rate": 0.1}  # an estimator's, as published
    same = replace(cell, seed=5, estimator_settings={}, training=cell.training | own)
    assert replace(same, estimator="dense").basis == cell.basis


def test_an_unknown_column_is_refused_and_nothing_is_written(tmp_path: Path, cell: Cell) -> None:
    with pytest.raises(KeyError, match="acuracy"):
        store.write_cell(tmp_path, cell, [row(cell, acuracy=0.5)])
    assert not [*tmp_path.rglob("*.parquet*")]


@pytest.mark.parametrize("name", [name for name in REQUIRED if name in ("key", "seed", "status")])
def test_a_row_without_what_is_required_is_not_written(
    tmp_path: Path, cell: Cell, name: str
) -> None:
    with pytest.raises(KeyError, match=f"no value for {name}"):
        store.write_cell(tmp_path, cell, [row(cell), row(cell) | {name: None}])
    assert not [*tmp_path.rglob("*.parquet*")]


def test_a_value_of_another_type_is_not_written(tmp_path: Path, cell: Cell) -> None:
    for wrong in (
        {"accuracy": "high"},
        {"seed": 0.5},
        {"step": float("nan")},
        {"reason": 3},
        {"dirty": "yes"},
    ):
        with pytest.raises((ValueError, TypeError)):
            store.write_cell(tmp_path, cell, [row(cell, **wrong)])
    assert not [*tmp_path.rglob("*.parquet*")]


def test_a_write_that_breaks_leaves_the_old_file(
    tmp_path: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_cell(tmp_path, cell, [row(cell, step=1)])

    def half(table: object, file: IO[bytes]) -> None:
        file.write(b"PAR1")
        raise OSError("no space left on device")

    monkeypatch.setattr(store.pq, "write_table", half)
    with pytest.raises(OSError, match="no space"):
        store.write_cell(tmp_path, cell, [row(cell, step=2)])
    assert [path.name for path in store.cell_path(tmp_path, cell).parent.iterdir()] == [
        f"{cell.key}.parquet"
    ]
    assert pd.read_parquet(store.cell_path(tmp_path, cell))["step"].tolist() == [1]


def test_a_damaged_cell_is_not_there(tmp_path: Path, cell: Cell) -> None:
    store.write_cell(tmp_path, cell, [row(cell)])
    store.cell_path(tmp_path, cell).write_bytes(b"PAR1 and no more")
    assert store.stored_status(tmp_path, cell) is None
    with pytest.raises(ResultsError, match="is damaged: delete it"):
        store.last_row(tmp_path, cell)
    assert store.stored_status(tmp_path / "nowhere", cell) is None


def test_the_schema_is_documented() -> None:
    readme = (Path(__file__).parents[3] / "results" / "README.md").read_text()
    names = {*TRAINING.columns.names, *GRADIENTS.columns.names}
    assert not [name for name in names if f"`{name}`" not in readme]
