"""A cell that takes the time of training steps, and nothing else.

From the weights that training starts from, where supports are at their largest. Cells of a grid run
one at a time, seed by seed, so that a slow spell of the machine meets all estimators.
"""

from collections.abc import Iterator
from pathlib import Path

from bench.cells.cell import Cell
from bench.cells.course import ready
from bench.cells.step import Purpose
from bench.cells.training import Row
from bench.grid.claims import Report

REPETITIONS = 5
"""Of a cell: a row for each."""

STEPS = 10
"""Of a repetition."""

COUNTED: dict[str, Purpose] = {
    "decoder_calls": "latent",
    "slopes": "slopes",
    "oracle_calls": "oracle",
}
"""Columns of what a step costs an example, and what the harness counts it as."""


def time_cell(
    cell: Cell,
    data_dir: Path | None = None,
    device: str = "cpu",
    report: Report = lambda share: None,
    models: Path | None = None,
) -> Iterator[Row]:
    """Time a cell's steps: a row for each repetition.

    Args:
        cell: what to time.
        data_dir: folder with the data sets that are not bundled.
        device: where to.
        report: called with the share that is done, in [0, 1].
        models: where warm starts are kept; None for nowhere.
    Raises:
        DivergedError: the loss stopped being finite.
        DataError: a data set is missing or damaged.
    """
    trainer = ready(cell, data_dir, device, models)
    for repetition in range(REPETITIONS):
        seconds, rows = trainer.train_seconds, trainer.rows
        before = trainer.cost.calls.copy()
        trainer.train(STEPS)
        calls = trainer.cost.calls
        examples = trainer.rows - rows
        yield {
            "repetition": repetition,
            "step": trainer.step,
            "milliseconds": 1e3 * (trainer.train_seconds - seconds) / STEPS,
            **{
                column: (calls[name] - before[name]) / examples if examples else None
                for column, name in COUNTED.items()
            },
        }
        report((repetition + 1) / REPETITIONS)
