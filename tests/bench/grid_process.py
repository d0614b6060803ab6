"""The grid of a command line in a process of its own, without the report: for tests that kill it.

Prints each outcome as a line of JSON as it comes.
"""

import json
import sys

from cyclopts import App

from bench.cli.options import Grid
from bench.errors import UserError
from bench.grid.runner import Outcome

DEFAULT_GRID = Grid()


def tell(outcome: Outcome) -> None:
    """A line of an outcome."""
    parts = {"cell": outcome.cell.name, "status": outcome.status, "reason": outcome.reason}
    print(json.dumps(parts), flush=True)


def run(*, grid: Grid = DEFAULT_GRID) -> None:
    """As the command line, up to the last outcome."""
    from bench.grid.grid import run_cells

    grid.check()
    execution = grid.execution("training")
    run_cells(grid.plan(grid.load_profile()), execution, tell)


if __name__ == "__main__":
    app = App()
    app.default(run)
    try:
        app()
    except UserError as error:
        sys.exit(f"error: {error}")
