"""Reading results folders."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import dataset as ds
from pyarrow import fs

SCHEMA_VERSION = 3
"""The version of the columns of trainings, which is written and understood."""

GRADIENT_SCHEMA_VERSION = 4
"""The same, of measurements of gradients."""

ADDED = pa.schema([("traceback", pa.string())])
"""Columns that came with these versions. The versions before are read too, with null there."""

CELLS = "task=*/estimator=*/[!.]*.parquet"
"""Where cells are, in the folder `cells` of a results folder."""

PATIENCE = 3
"""How often a folder is read again whose files change while it is read."""

GRID = "grid.json"
"""A file of a results folder: which cells it was asked for."""

TRIALS = "trials.parquet"
"""A file of a results folder: the trials of a search."""

SEARCH_VERSION = 1
"""The version of its columns, which is written and understood."""


class ResultsError(Exception):
    """A results folder that can't be read; the message is one line."""


def holds_results(folder: Path) -> bool:
    """Whether there are any cells in a folder."""
    return any((folder / "cells").glob(CELLS))


def read_grid(folder: Path) -> list[dict[str, str]]:
    """What a results folder was asked for: a cell's key, its name, task, and basis of comparison.

    Raises:
        ResultsError: the file is damaged.
    """
    path = folder / GRID
    try:
        entries: list[dict[str, str]] = json.loads(path.read_text()) if path.exists() else []
    except ValueError as error:
        raise ResultsError(f"{path} is damaged: delete it, and run the same command") from error
    return entries


def schema_version(columns: Sequence[str]) -> int:
    """The version that a table with these columns has to have."""
    return GRADIENT_SCHEMA_VERSION if "group" in columns else SCHEMA_VERSION


def read_cells(folder: Path) -> pa.Table:
    """The rows of a results folder as they are stored, with columns task and estimator.

    Cells that were asked for with other settings since stay in the folder and are left out here.

    Args:
        folder: what `--out` named: it holds `cells/`, or else `table.parquet`.
    Raises:
        ResultsError: there are no results, or they are damaged, or of another schema.
    """
    for _ in range(PATIENCE):
        files = sorted((folder / "cells").glob(CELLS))
        try:
            return _read_once(folder, files)
        except ResultsError:
            if files == sorted((folder / "cells").glob(CELLS)):
                raise  # else cells came or went meanwhile, as they do while a grid runs
    return _read_once(folder, sorted((folder / "cells").glob(CELLS)))


def _read_once(folder: Path, files: list[Path]) -> pa.Table:
    """The rows of a folder that has these files of cells."""
    here = fs.LocalFileSystem()  # else pyarrow takes the path "a:b" for an address
    cells, compacted = folder / "cells", folder / "table.parquet"
    try:
        if files:
            source = ds.dataset(str(cells), filesystem=here, partitioning="hive")
        elif compacted.is_file():
            files = [compacted]
            source = ds.dataset(str(compacted), filesystem=here)
        else:
            raise ResultsError(f"{folder} holds no results: run run_bench.py --out {folder} first")
        columns = pa.unify_schemas([source.schema, ADDED], promote_options="permissive")
        table = source.replace_schema(columns).to_table()
        versions = set(table["schema_version"].to_pylist())
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ResultsError(_damage(folder, files, error)) from error
    current = schema_version(table.column_names)
    if not versions <= {current - 1, current}:
        raise ResultsError(
            f"{folder} has results of schema {', '.join(sorted(map(str, versions)))}, this is "
            f"{current}: read them with the commit that wrote them, or give another --out"
        )
    if files != [compacted] and (folder / GRID).is_file():
        keys = [entry["key"] for entry in read_grid(folder)]
        table = table.filter(pc.is_in(table["key"], pa.array(keys, pa.string())))
    return table


def _damage(folder: Path, files: list[Path], error: Exception) -> str:
    """Which file can't be read, and what to do."""
    for file in files:
        try:
            with file.open("rb") as content:
                if "schema_version" not in pq.read_table(content).column_names:
                    return f"{file} is no results file of ours: move it elsewhere"
        except (pa.ArrowException, OSError):
            return f"{file} is damaged: delete it, and run the same command to make it again"
    return f"{folder} can't be read: {str(error).splitlines()[0]}"


def load_results(folder: Path) -> pd.DataFrame:
    """All rows of the grid that a results folder was asked for; see results/README.md.

    Args:
        folder: what `--out` named.
    Raises:
        ResultsError: there are none, they are damaged, of another schema, or of gradients.
    """
    return _with_column("split", folder, "gradients, not training")


def load_gradients(folder: Path) -> pd.DataFrame:
    """The same for measurements of gradients."""
    return _with_column("group", folder, "training, not gradients")


def _with_column(column: str, folder: Path, else_: str) -> pd.DataFrame:
    """The rows of a folder that must have a column."""
    table: pd.DataFrame = read_cells(folder).to_pandas()
    if column not in table:
        raise ResultsError(f"{folder} holds {else_}: give another folder")
    if table.loc[table["status"] == "ok", column].isna().any():
        raise ResultsError(f"{folder} holds training and gradients: keep them in two folders")
    return table


def kind_of(folder: Path) -> Literal["training", "gradients", "search"]:
    """What a results folder holds.

    Raises:
        ResultsError: there are no results, or they are damaged, or of another schema.
    """
    if (folder / TRIALS).exists():
        return "search"
    return "gradients" if "group" in read_cells(folder).column_names else "training"


def flatten_hyperparameters(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column for each setting, such as `training.learning_rate`."""
    settings = table["hyperparameters"].map(json.loads)
    flat: pd.DataFrame = pd.json_normalize(settings.tolist())
    return table.drop(columns="hyperparameters").join(flat.set_index(table.index))


def final_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows on the test split of the cells that are ok: one for each cell."""
    return table[(table["status"] == "ok") & (table["split"] == "test")]


def end_rows(table: pd.DataFrame) -> pd.DataFrame:
    """What is compared: the rows on test of the cells that are ok, and one of each other cell."""
    others = table[table["status"] != "ok"].drop_duplicates("key")
    return pd.concat([final_rows(table), others])


def untrained_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The first validation row of the floor's cells: models as they were initialised."""
    first = (table["step"] == 0) & (table["split"] == "validation")
    return table[first & (table["estimator"] == FLOOR)]


def outcomes(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell: task, estimator, seed, status, reason."""
    columns: list[Any] = ["task", "estimator", "seed", "status", "reason"]
    return table.drop_duplicates("key")[columns].reset_index(drop=True)


FLOOR = "none"
"""The estimator that gives no gradient."""
