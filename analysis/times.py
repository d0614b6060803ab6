"""Times, which can be compared only between cells that ran under equal circumstances."""

from typing import Any

import pandas as pd

CIRCUMSTANCES = {
    "threads": "{} threads",
    "cells_beside": "{} cells beside",
    "device": "{}",
    "machine": "{}",
    "kernels": "{}",
}
"""Columns that must be equal, and how each is said."""


CODE = {
    "commit": "commit", "dirty": "changed files", "torch": "torch", "numba": "numba",
    "python": "Python", "packages": "packages",
}  # fmt: skip
"""Columns that say by what code times were taken, and how each is said."""


def differing_code(rows: pd.DataFrame) -> list[str]:
    """What the code differs in that rows were made by, in words."""
    return [word for name, word in CODE.items() if rows[name].nunique(dropna=False) > 1]


def differing(rows: pd.DataFrame) -> list[str]:
    """The circumstances in which rows differ."""
    return [name for name in CIRCUMSTANCES if rows[name].nunique(dropna=False) > 1]


def circumstances(rows: pd.DataFrame) -> pd.Series:
    """The circumstances of each row in words, as far as the rows differ in them; else empty."""
    said = pd.Series("", index=rows.index)
    for name in differing(rows):
        word = rows[name].map(lambda value, name=name: CIRCUMSTANCES[name].format(_plain(value)))
        said = said.where(said == "", said + ", ") + word
    return said


def _plain(value: Any) -> str:
    """A value as it was before a missing one among others made it a float."""
    return "unknown" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def comparable(table: pd.DataFrame, column: str) -> pd.Series:
    """A column of times, NaN for cells under other circumstances than most of their task's."""
    ran = table[table["status"].isin(["ok", "diverged"])]
    kept = [under_equal_circumstances(own)[0]["key"] for _, own in ran.groupby("task")]
    return table[column].where(table["key"].isin(set().union(*kept)))


def told(rows: pd.DataFrame) -> str:
    """That the rows differ in circumstances, and in which; empty if they don't."""
    values = "; ".join(
        f"{name}: {', '.join(sorted(map(_plain, rows[name].unique())))}" for name in differing(rows)
    )
    return f"Not all cells ran under equal circumstances ({values})" if values else ""


def under_equal_circumstances(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows of the circumstances that most estimators, then most cells, ran under.

    Returns:
        the rows, and what has to be said of the others: empty if there are none.
    """
    said = circumstances(rows)
    if said.nunique() < 2:
        return rows, ""
    groups = rows.groupby(said)[["estimator", "key"]].nunique()
    chosen = groups.sort_values(["estimator", "key"], kind="stable").index[-1]
    cells = rows["key"].nunique()
    return rows[said == chosen], f"{groups.loc[chosen, 'key']} of {cells} cells: {chosen}"
