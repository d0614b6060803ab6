"""Results on disk: one parquet file a cell, written whole or not at all.

    <results>/cells/task=<task>/estimator=<estimator>/<key>.parquet
    <results>/grid.json                the cells that the folder was asked for
    <results>/table.parquet            these in one, once a grid is through

Task and estimator stand in the path only, as hive partitions, which every reader turns into
columns. results/README.md says what the columns mean, analysis/schema.py their types. Nothing here
imports torch.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.files import written_whole
from analysis.schema import GRADIENTS, REQUIRED, TIMING, TRAINING, Kind
from analysis.stored import GRID, TABLE, Asked, read_cells, read_grid, rows_of_cell
from bench.cells.numerics import NUMERICS

if TYPE_CHECKING:
    from bench.cells.cell import Cell
    from bench.profiles.profile import Found


def cell_path(results: Path, cell: "Cell") -> Path:
    """Where a cell's rows are stored."""
    folder = results / "cells" / f"task={cell.task}" / f"estimator={cell.estimator}"
    return folder / f"{cell.key}.parquet"


def write_cell(results: Path, cell: "Cell", rows: Iterable[dict[str, Any]]) -> None:
    """Store the rows of a cell, in place of any that are there.

    Raises:
        KeyError: a row has a column that the schema does not know, or lacks one that it requires.
        ValueError, TypeError: a value has another type than its column.
    """
    kind = TIMING if cell.timing else TRAINING if cell.gradients is None else GRADIENTS
    _write(_table(list(rows), kind), cell_path(results, cell))


class StoredEnd(NamedTuple):
    """How a stored cell ended."""

    status: str
    reason: str | None
    traceback: str | None = None


def stored_end(results: Path, cell: "Cell") -> StoredEnd | None:
    """How a stored cell ended; None if it is not there or can't be read."""
    try:
        with cell_path(results, cell).open("rb") as file:
            columns = pq.ParquetFile(file).read(list(StoredEnd._fields), use_threads=False)
        return StoredEnd(**columns.to_pylist()[-1])
    except (OSError, pa.ArrowInvalid, TypeError, IndexError):
        return None


def stored_status(results: Path, cell: "Cell") -> str | None:
    """The status of a stored cell; None if it is not there or can't be read."""
    end = stored_end(results, cell)
    return None if end is None else end.status


def stored_stamp(results: Path, cell: "Cell") -> int | None:
    """What changes whenever a cell is stored; None if it is not there."""
    try:
        with cell_path(results, cell).open("rb") as file:  # opening asks a file server anew
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def last_row(results: Path, cell: "Cell") -> dict[str, Any]:
    """The last row of a stored cell.

    Raises:
        ResultsError: it is not there, or can't be read.
    """
    table = rows_of_cell(cell_path(results, cell))
    row: dict[str, Any] = table.slice(len(table) - 1).to_pylist()[0]
    return row


def note_grid(results: Path, cells: "Sequence[Cell]", command: str) -> None:
    """Note which cells a results folder is asked for, which is what its reports show.

    Cells that it was asked for before stay, unless they are asked for again with other settings, or
    can't stand beside the new ones: see `Cell.basis`. In `cells/` everything stays.

    Args:
        results: the folder.
        cells: what it is asked for.
        command: the command line that asks.
    """
    asked = [Asked(cell.key, cell.name, cell.task, cell.basis, command) for cell in cells]
    names = {one.cell for one in asked}
    bases = {(one.task, one.basis) for one in asked}
    tasks = {one.task for one in asked}
    kept = [
        one
        for one in read_grid(results)
        if one.cell not in names and (one.task not in tasks or (one.task, one.basis) in bases)
    ]
    write_grid(results, kept + asked)


def write_grid(results: Path, asked: Sequence[Asked]) -> None:
    """Store which cells a results folder is asked for."""
    with written_whole(results / GRID) as file:
        file.write(json.dumps([asdict(one) for one in asked], indent=0).encode())


def compact(results: Path) -> Path:
    """Put all stored cells of the grid into one table.parquet and return its path.

    Raises:
        ResultsError: a file is damaged, or of another schema.
    """
    path = results / TABLE
    _write(read_cells(results), path)
    return path


def hyperparameters(cell: "Cell", found: "Found | None" = None) -> str:
    """All settings of a cell as JSON with sorted keys, and which of them a search found."""
    parts = {
        "task": cell.task_settings,
        "estimator": cell.estimator_settings,
        "training": cell.training,
        "evaluation": cell.evaluation,
        "dataset_digest": cell.dataset_digest,
    }
    if cell.gradients is not None:
        parts["gradients"] = cell.gradients
    if found is not None:
        parts["found"] = found.model_dump()
    return json.dumps(parts, sort_keys=True)


def _table(rows: list[dict[str, Any]], kind: Kind) -> pa.Table:
    versions = {"schema_version": kind.version, "numerics": NUMERICS}
    counts = [field.name for field in kind.columns if field.type == pa.int64()]
    known = [versions | row for row in rows]
    for row in known:
        strange = sorted({*row} - {*kind.columns.names})
        if strange:
            raise KeyError(f"no such column: {', '.join(strange)}")
        lacking = [name for name in REQUIRED if row.get(name) is None]
        if lacking:
            raise KeyError(f"no value for {', '.join(lacking)}")
        for name in counts:  # which pyarrow would cut off
            if isinstance(value := row.get(name), float) and not value.is_integer():
                raise ValueError(f"{name} is {value}: no whole number")
    return pa.Table.from_pylist(known, schema=kind.columns)


def _write(table: pa.Table, path: Path) -> None:
    with written_whole(path) as file:  # a file, as pyarrow takes the path "a:b" for an address
        pq.write_table(table, file)
