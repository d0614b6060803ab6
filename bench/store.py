"""Results on disk: one parquet file a cell, written whole or not at all.

    <results>/cells/task=<task>/estimator=<estimator>/<key>.parquet
    <results>/grid.json                the cells that the folder was asked for
    <results>/table.parquet            these in one, once a grid is through

Task and estimator stand in the path only, as hive partitions, which every reader turns into
columns. results/README.md says what the columns mean; `SCHEMA` is what is written.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.load import GRID, read_cells, read_grid, schema_version
from bench.cells import NUMERICS, Cell
from bench.files import written_whole
from bench.profiles import Found

_COMMON_TEXT = (
    "key", "profile", "dataset", "hyperparameters", "status", "reason", "traceback", "device",
    "machine", "torch", "numba", "python", "commit", "command", "started",
)  # fmt: skip
_COMMON_NUMBERS = ("decoder_calls", "wall_seconds", "peak_memory_mb")
_COMMON_COUNTS = ("schema_version", "numerics", "seed", "step", "threads", "cells_beside")
_NUMBERS = (
    "epoch", "accuracy", "elbo", "nll", "nll_effective_samples", "rate", "distortion", "loss",
    "expected_cost", "entropy", "support_mean", "support_median", "support_max", "unsolved",
    "train_seconds", "gradient_norm", "chance",
)  # fmt: skip
_COUNTS = ("latent_size", "examples", "decoder_calls_total", "supervised_calls_total")
_GRADIENT_NUMBERS = (
    "share", "exact_norm", "bias", "bias_low", "bias_high", "bias_square", "bias_square_error",
    "variance", "variance_error", "mean_squared_error", "signal_to_noise", "cosine", "cosine_error",
    "objective_distance", "plain_norm", "seconds", "knob_value",
)  # fmt: skip


def _schema(text: Sequence[str], numbers: Sequence[str], counts: Sequence[str]) -> pa.Schema:
    return pa.schema(
        [(name, pa.string()) for name in text]
        + [(name, pa.float64()) for name in numbers]
        + [(name, pa.int64()) for name in counts]
        + [("dirty", pa.bool_())]
    )


SCHEMA = _schema(
    (*_COMMON_TEXT, "split", "diagnostics"),
    (*_COMMON_NUMBERS, *_NUMBERS),
    (*_COMMON_COUNTS, *_COUNTS),
)
"""Of cells that train."""

GRADIENT_SCHEMA = _schema(
    (*_COMMON_TEXT, "group", "knob", "declared"),
    (*_COMMON_NUMBERS, *_GRADIENT_NUMBERS),
    (*_COMMON_COUNTS, "draws", "size", "batches"),
)
"""Of cells that measure gradients."""


def cell_path(results: Path, cell: Cell) -> Path:
    """Where a cell's rows are stored."""
    folder = results / "cells" / f"task={cell.task}" / f"estimator={cell.estimator}"
    return folder / f"{cell.key}.parquet"


def write_cell(results: Path, cell: Cell, rows: Iterable[dict[str, Any]]) -> None:
    """Store the rows of a cell, in place of any that are there.

    Raises:
        KeyError: a row has a column that the schema does not know.
    """
    table = _table(list(rows), SCHEMA if cell.gradients is None else GRADIENT_SCHEMA)
    _write(table, cell_path(results, cell))


class StoredEnd(NamedTuple):
    """How a stored cell ended."""

    status: str
    reason: str | None
    traceback: str | None = None


def stored_end(results: Path, cell: Cell) -> StoredEnd | None:
    """How a stored cell ended; None if it is not there or can't be read."""
    try:
        with cell_path(results, cell).open("rb") as file:
            columns = pq.ParquetFile(file).read(list(StoredEnd._fields), use_threads=False)
        return StoredEnd(**columns.to_pylist()[-1])
    except (OSError, pa.ArrowInvalid, TypeError, IndexError):
        return None


def stored_status(results: Path, cell: Cell) -> str | None:
    """The status of a stored cell; None if it is not there or can't be read."""
    end = stored_end(results, cell)
    return None if end is None else end.status


def stored_stamp(results: Path, cell: Cell) -> int | None:
    """What changes whenever a cell is stored; None if it is not there."""
    try:
        with cell_path(results, cell).open("rb") as file:  # opening asks a file server anew
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def last_row(results: Path, cell: Cell) -> dict[str, Any]:
    """The last row of a stored cell.

    Raises:
        OSError: it is not there.
    """
    with cell_path(results, cell).open("rb") as file:
        row: dict[str, Any] = pq.read_table(file).to_pylist()[-1]
    return row


def note_grid(results: Path, cells: Sequence[Cell]) -> None:
    """Note which cells a results folder is asked for, which is what its reports show.

    Cells that it was asked for before stay, unless they are asked for again with other settings, or
    can't stand beside the new ones: see `Cell.basis`. In `cells/` everything stays.
    """
    asked = [
        {"key": cell.key, "cell": cell.name, "task": cell.task, "basis": cell.basis}
        for cell in cells
    ]
    names = {entry["cell"] for entry in asked}
    bases = {(entry["task"], entry["basis"]) for entry in asked}
    tasks = {entry["task"] for entry in asked}
    kept = [
        entry
        for entry in read_grid(results)
        if entry["cell"] not in names
        and (entry["task"] not in tasks or (entry["task"], entry["basis"]) in bases)
    ]
    with written_whole(results / GRID) as file:
        file.write(json.dumps(kept + asked, indent=0).encode())


def compact(results: Path) -> Path:
    """Put all stored cells of the grid into one table.parquet and return its path.

    Raises:
        ResultsError: a file is damaged, or of another schema.
    """
    path = results / "table.parquet"
    _write(read_cells(results), path)
    return path


def hyperparameters(cell: Cell, found: Found | None = None) -> str:
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


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    for row in rows:
        strange = set(row) - set(schema.names)
        if strange:
            raise KeyError(f"no such column: {', '.join(sorted(strange))}")
    versions = {"schema_version": schema_version(schema.names), "numerics": NUMERICS}
    known = [versions | row for row in rows]
    return pa.Table.from_pylist(known, schema=schema)


def _write(table: pa.Table, path: Path) -> None:
    with written_whole(path) as file:  # a file, as pyarrow takes the path "a:b" for an address
        pq.write_table(table, file)
