"""Which rows a table may have, and in which order they are handed on.

Whoever reads and writes a table, pandas or duckdb say, may sort, shuffle or double its rows: what
is made of them is a function of the set of rows alone.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from analysis.schema import PARTITIONS, Kind


def in_order(table: pa.Table, kind: Kind) -> pa.Table:
    """The rows by task, estimator, key, and in each cell as the run wrote them."""
    keys = _of_cells(table)
    for name, values in kind.order.items():
        if values:  # null is among these, or comes last
            known = pa.array(values, pa.string())
            keys[f"rank of {name}"] = pc.index_in(table[name], value_set=known)
        keys[name] = table[name]
    by = [(name, "ascending") for name in keys]
    order = pc.sort_indices(pa.table(keys), sort_keys=by)
    # To take rows is slow, and most tables are in order.
    return table if order.to_pylist() == [*range(len(table))] else table.take(order)


def repeated(table: pa.Table, kind: Kind) -> str | None:
    """What is said of a table that has a row twice, or a cell that is two; None if none is."""
    whose = _of_cells(table)
    rows = _tuples(table, [*whose, *kind.order])
    if len({*rows}) < len(rows):
        row = dict(zip([*whose, *kind.order], Counter(rows).most_common(1)[0][0], strict=True))
        which = ", ".join(f"{name} {row[name]}" for name in kind.order if row[name] is not None)
        where = f" ({which})" if which else ""
        return f"has a row{where} of the cell {row['key']} more than once: keep one of each"
    cells = {*_tuples(table, ["key", *whose, "seed", "status"])}
    key, count = Counter(key for key, *_ in cells).most_common(1)[0]
    return (
        f"has rows of several cells under the key {key}: move it elsewhere" if count > 1 else None
    )


def _tuples(table: pa.Table, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows, of some columns."""
    return [*zip(*(table[name].to_pylist() for name in names), strict=True)]


def _of_cells(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns that say whose a row is, task and estimator if they are there."""
    return {name: table[name] for name in (*PARTITIONS, "key") if name in table.column_names}
