"""Scores: the column that a task is judged by, and the runs of a results table side by side."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.load import final_rows, outcomes


class Score(NamedTuple):
    """What rows are judged by."""

    column: str
    label: str
    more_is_better: bool


SCORES = (
    Score("nll", "NLL (bits/dim)", False),
    Score("accuracy", "accuracy", True),
    Score("elbo", "ELBO (nats)", True),
    Score("loss", "objective (nats)", False),
)
"""Rows are judged by the first of these that they have."""

LESS_IS_BETTER = frozenset(s.column for s in SCORES if not s.more_is_better) | {"decoder_calls"}
"""Of the columns that a search may go by."""

NO_SCORE = "without score"
"""What is said in place of `ok` of a cell whose score on test is not finite."""

ENDED_BADLY = ("failed", "diverged", "timeout", NO_SCORE)
"""What is said of cells that ran and gave no score."""


def score_of(rows: pd.DataFrame) -> Score:
    """The column that rows of one task are judged by, its label, and whether more is better."""
    return next((score for score in SCORES if rows[score.column].notna().any()), SCORES[-1])


def score_frame(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Test scores of a task: a row for each seed, a column for each estimator that has any.

    NaN where a run did not end well or has no score. Runs that are there twice count once, as
    their mean.
    """
    rows = final_rows(table[table["task"] == task])
    frame = rows.pivot_table(index="seed", columns="estimator", values=score_of(rows).column)
    return frame.replace([np.inf, -np.inf], np.nan).dropna(axis="columns", how="all")


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """`outcomes`, with NO_SCORE as the status of cells that are ok but for their score."""
    cells = outcomes(table)
    for _, rows in final_rows(table).groupby("task"):
        column, label, _ = score_of(rows)
        empty = rows.loc[~np.isfinite(rows[column].astype(float)), "key"]
        cells.loc[empty, ["status", "reason"]] = NO_SCORE, f"no finite {label} on test"
    return cells


def ended_badly(table: pd.DataFrame, task: str) -> pd.Series:
    """How many cells of each estimator failed, diverged, or ended without a score."""
    cells = judged(table[table["task"] == task])
    return cells["status"].isin(ENDED_BADLY).groupby(cells["estimator"]).sum().astype(int)


def normalised(frame: pd.DataFrame, more_is_better: bool) -> pd.DataFrame:
    """Scores between 0, the worst mean of an estimator or the floor, and 1, the best."""
    signed = frame if more_is_better else -frame
    means = signed.mean()
    span = means.max() - means.min()
    return (signed - means.min()) / (span if span > 0 else 1.0)
