"""Reading results folders."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import dataset as ds

SCHEMA_VERSION = 1
"""The version of the columns that this reader understands."""


class ResultsError(Exception):
    """A results folder that can't be read; the message is one line."""


def load_results(folder: Path) -> pd.DataFrame:
    """All rows of a results folder, with columns task and estimator; see results/README.md.

    Where task, estimator and seed were run again with other settings, the newest run counts.

    Args:
        folder: what `--out` named: it holds `cells/`, or else `table.parquet`.
    Raises:
        ResultsError: there are no results, or they are of another schema.
    """
    cells = folder / "cells"
    try:
        if any(cells.glob("task=*/estimator=*/[!.]*.parquet")):
            source = ds.dataset(cells, partitioning="hive")
        elif (folder / "table.parquet").is_file():
            source = ds.dataset(folder / "table.parquet")
        else:
            raise ResultsError(f"{folder} holds no results: run run_bench.py --out {folder} first")
        table: pd.DataFrame = source.to_table().to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise ResultsError(f"{folder} can't be read: {str(error).splitlines()[0]}") from error
    versions = set(table.get("schema_version", pd.Series(dtype=int)))
    if versions != {SCHEMA_VERSION}:
        raise ResultsError(
            f"{folder} has results of schema {sorted(versions)}, this is {SCHEMA_VERSION}: "
            "read them with the commit that wrote them"
        )
    newest = table.sort_values("started").groupby(["task", "estimator", "seed"])["key"].last()
    return table[table["key"].isin(newest)].reset_index(drop=True)


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
