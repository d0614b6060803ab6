"""Reading results folders."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import dataset as ds
from pyarrow import fs

SCHEMA_VERSION = 2
"""The version of the columns, which is written and understood."""


class ResultsError(Exception):
    """A results folder that can't be read; the message is one line."""


def read_cells(folder: Path) -> pa.Table:
    """All rows of a results folder, as they are stored, with columns task and estimator.

    Args:
        folder: what `--out` named: it holds `cells/`, or else `table.parquet`.
    Raises:
        ResultsError: there are no results, or they are damaged, or of another schema.
    """
    here = fs.LocalFileSystem()  # else pyarrow takes the path "a:b" for an address
    cells, compacted = folder / "cells", folder / "table.parquet"
    files = sorted(cells.glob("task=*/estimator=*/[!.]*.parquet"))
    try:
        if files:
            source = ds.dataset(str(cells), filesystem=here, partitioning="hive")
        elif compacted.is_file():
            files = [compacted]
            source = ds.dataset(str(compacted), filesystem=here)
        else:
            raise ResultsError(f"{folder} holds no results: run run_bench.py --out {folder} first")
        table = source.to_table()
        versions = set(table["schema_version"].to_pylist())
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ResultsError(_damage(folder, files, error)) from error
    if versions != {SCHEMA_VERSION}:
        raise ResultsError(
            f"{folder} has results of schema {', '.join(map(str, sorted(versions)))}, this is "
            f"{SCHEMA_VERSION}: read them with the commit that wrote them, or give another --out"
        )
    return table


def _damage(folder: Path, files: list[Path], error: Exception) -> str:
    """Which file can't be read, and what to do."""
    for file in files:
        try:
            with file.open("rb") as content:
                pq.read_table(content, columns=["schema_version"])
        except (pa.ArrowException, OSError, KeyError):
            return f"{file} is damaged: delete it, and run the same command to make it again"
    return f"{folder} can't be read: {str(error).splitlines()[0]}"


def load_results(folder: Path) -> pd.DataFrame:
    """The rows of a results folder that can be compared; see results/README.md.

    Where task, estimator and seed were run again, the newest run counts. Of each task, cells with
    other data, another model or another evaluation than its newest cell has are left out.

    Args:
        folder: what `--out` named.
    Raises:
        ResultsError: there are no results, or they are damaged, or of another schema.
    """
    table: pd.DataFrame = read_cells(folder).to_pandas()
    table = table.sort_values("started", kind="stable")
    newest = table.groupby(["task", "estimator", "seed"])["key"].last()
    table = table[table["key"].isin(newest)]
    comparison = table["hyperparameters"].map(_comparison)
    current = comparison.groupby(table["task"]).transform("last")
    return table[comparison == current].sort_index().reset_index(drop=True)


def _comparison(hyperparameters: str) -> str:
    """What all cells of a table must have in common: data, model and evaluation."""
    settings = json.loads(hyperparameters)
    return json.dumps([settings[part] for part in ("dataset_digest", "task", "evaluation")])


def flatten_hyperparameters(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column for each setting, such as `training.learning_rate`."""
    settings = table["hyperparameters"].map(json.loads)
    flat: pd.DataFrame = pd.json_normalize(settings.tolist())
    return table.drop(columns="hyperparameters").join(flat.set_index(table.index))


def final_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows on the test split of the cells that are ok: one for each cell."""
    return table[(table["status"] == "ok") & (table["split"] == "test")]


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
