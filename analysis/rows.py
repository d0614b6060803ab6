"""Which rows a table may have, and in which order they are handed on.

Whoever reads and writes a table, pandas or duckdb say, may sort, shuffle or double its rows: what
is made of them is a function of the set of rows alone.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from analysis.schema import NAME, PARTITIONS, Kind

NAMES = (*PARTITIONS, "knob")
"""Columns of names."""


def in_order(table: pa.Table, kind: Kind) -> pa.Table:
    """The rows by task, estimator, key, and in each cell as the run wrote them."""
    names = [*_of_cells(table), *kind.order]
    ranks = [{value: rank for rank, value in enumerate(kind.order.get(n, ()))} for n in names]
    places = [
        [(r.get(value, len(r)), value is None, value) for r, value in zip(ranks, row, strict=True)]
        for row in _tuples(table, names)
    ]
    order = sorted(range(len(places)), key=places.__getitem__)
    # To take rows is slow, and most tables are in order.
    return table if order == [*range(len(order))] else table.take(pa.array(order))


def foreign(table: pa.Table) -> str | None:
    """What is said of a table with values that no run writes; None if it has none.

    Names become those of files, and nothing that stands in a file may lead out of its folder.
    """
    for column in [name for name in NAMES if name in table.column_names]:
        for name in {*table[column].to_pylist()} - {None}:
            if not NAME.fullmatch(name):
                return f"has {name!r} in the column {column}, which is no name"
    for text in {*table["hyperparameters"].to_pylist()} - {None}:
        try:
            estimator = json.loads(text).get("estimator", {})
        except (ValueError, RecursionError, AttributeError):  # no JSON, or JSON of no object
            estimator = None
        if not isinstance(estimator, dict):
            return "has hyperparameters that are no JSON of settings"
    return None


def repeated(table: pa.Table, kind: Kind) -> str | None:
    """What is said of a table that has a row twice, or a cell that is two; None if none is."""
    whose = _of_cells(table)
    rows = _tuples(table, [*whose, *kind.order])
    if len({*rows}) < len(rows):
        row = dict(zip([*whose, *kind.order], Counter(rows).most_common(1)[0][0], strict=True))
        which = ", ".join(f"{name} {row[name]!r}" for name in kind.order if row[name] is not None)
        where = f" ({which})" if which else ""
        return f"has a row{where} of the cell {row['key']!r} more than once: keep one of each"
    cells = {*_tuples(table, ["key", *whose, "seed", "status"])}
    key, count = Counter(key for key, *_ in cells).most_common(1)[0]
    return (
        f"has rows of several cells under the key {key!r}: move it elsewhere" if count > 1 else None
    )


def _tuples(table: pa.Table, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows, of some columns."""
    return [*zip(*(table[name].to_pylist() for name in names), strict=True)]


def _of_cells(table: pa.Table) -> list[str]:
    """The columns that say whose a row is: task and estimator if they are there, and key."""
    return [name for name in (*PARTITIONS, "key") if name in table.column_names]
