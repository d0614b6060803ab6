"""Results folders as pandas tables."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.schema import GRADIENTS, TIMING, TRAINING, Kind, kind_with
from analysis.stored import ResultsError, read_cells

FLOOR = "none"
"""The estimator that gives no gradient."""


def load_results(folder: Path) -> pd.DataFrame:
    """All rows of the grid that a results folder was asked for; see results/README.md.

    Args:
        folder: what `--out` named.
    Raises:
        ResultsError: there are none, they are damaged, of another schema, or of gradients.
    """
    return _load(folder, TRAINING)


def load_gradients(folder: Path) -> pd.DataFrame:
    """The same for measurements of gradients."""
    return _load(folder, GRADIENTS)


def load_timing(folder: Path) -> pd.DataFrame:
    """The same for times of training steps."""
    return _load(folder, TIMING)


def _load(folder: Path, kind: Kind) -> pd.DataFrame:
    """The rows of a folder that must be of a kind."""
    table = read_cells(folder)
    found = kind_with(table.column_names)
    if found != kind:
        raise ResultsError(f"{folder} holds {found.name}, not {kind.name}: give another folder")
    frame: pd.DataFrame = table.to_pandas()
    return frame


def settings_of(hyperparameters: str | None) -> dict[str, Any]:
    """The parts of a row's hyper-parameters; none where they are not known."""
    return json.loads(hyperparameters) if isinstance(hyperparameters, str) else {}


def flatten_hyperparameters(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column for each setting, such as `training.learning_rate`."""
    settings = table["hyperparameters"].map(settings_of)
    flat: pd.DataFrame = pd.json_normalize(settings.tolist())
    return table.drop(columns="hyperparameters").join(flat.set_index(table.index))


def final_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows on the test split of the cells that are ok: one for each cell, of its best model."""
    tested = table[(table["status"] == "ok") & (table["split"] == "test")]
    best = tested.loc[tested["selection"] == "best", "key"]
    others = ~tested["key"].isin(best)  # of versions that had but one row on test
    return tested[(tested["selection"] == "best") | others].drop_duplicates("key")


def last_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The same rows of their last models, where a table tells these apart."""
    return table[
        (table["status"] == "ok") & (table["split"] == "test") & (table["selection"] == "last")
    ]


def cell_rows(table: pd.DataFrame) -> pd.DataFrame:
    """One row of each cell: of its best model on test, or else the last that it came to."""
    final = final_rows(table)
    others = table[~table["key"].isin(final["key"])].sort_values("step", kind="stable")
    rows = pd.concat([final, others.drop_duplicates("key", keep="last")])
    return rows.sort_values(["task", "estimator", "key"])


def end_rows(table: pd.DataFrame) -> pd.DataFrame:
    """What is compared: the rows on test of the cells that are ok, and one of each other cell."""
    rows = cell_rows(table)
    return rows[(rows["status"] != "ok") | (rows["split"] == "test")]


def start_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The first validation row of the floor's cells: models before they are trained on."""
    first = (table["step"] == 0) & (table["split"] == "validation")
    return table[first & (table["estimator"] == FLOOR)]


def while_all_go_on(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows at steps that all runs of their estimator reached.

    A mean over those that still go on, where others have stopped early, shows a course that none
    had.
    """
    runs = rows.groupby(["estimator", "step"])["key"].transform("nunique")
    return rows[runs == runs.groupby(rows["estimator"]).transform("max")]


def outcomes(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell, by its key: task, estimator, seed, status, reason."""
    columns: list[Any] = ["task", "estimator", "seed", "status", "reason"]
    return table.drop_duplicates("key").set_index("key")[columns]
