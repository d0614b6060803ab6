"""Results folders of cells that were not run: their rows are made by hand."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bench.cells.cell import Cell
from bench.results.store import cell_path, note_grid, write_cell


def store(folder: Path, cell: Cell, status: str = "ok", **values: object) -> Path:
    """Store a cell with two rows, or one where it is not ok; the path of its file."""
    row: dict[str, object] = {
        "key": cell.key, "seed": cell.seed, "status": status, "command": "run_bench.py",
        "reason": None if status == "ok" else "because of this",
    }  # fmt: skip
    rows = [row]
    if status == "ok" and cell.gradients is None:
        numbers = {"step": 10, "loss": 2.0, "accuracy": 0.5, "elbo": np.nan, **values}
        tested = {"split": "test", "selection": "best"}
        rows = [row | numbers | where for where in ({"split": "validation"}, tested)]
    write_cell(folder, cell, [row | values for row in rows])
    return cell_path(folder, cell)


def folder_of(
    folder: Path, cells: Iterable[Cell], status: str = "ok", command: str = "run_bench.py"
) -> Path:
    """A folder that was asked for cells, and has them."""
    cells = list(cells)
    note_grid(folder, cells, command)
    for cell in cells:
        store(folder, cell, status)
    return folder
