"""Training on labels alone, which a cell may start from: done once for all cells that share it.

Cells of a seed share it whatever their estimator, if the loss on labels is the same: that belongs
to the estimator's distribution, softmax or sparsemax (Correia et al. 2020, section 5.1). Seeds do
not: all would start from one draw, and their spread would say nothing of another.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.cells.cell import Cell
from bench.cells.tensors import load, save
from bench.cells.training import REPORT_EVERY, Trainer
from bench.profiles.profile import TrainingSettings
from estimators.base import Estimator
from estimators.none import NoGradient
from estimators.registry import all_estimators


def warm_start_of(cell: Cell) -> Cell | None:
    """The training that a cell starts from, as a cell that knows of nothing else; None without."""
    settings = TrainingSettings(**cell.training)
    if not settings.warm_start_epochs:
        return None
    plain = all_estimators()[cell.estimator].distribution is Estimator.distribution
    training: dict[str, Any] = {
        "epochs": 0,
        "warm_start_epochs": settings.warm_start_epochs,
        "learning_rate": settings.warm_start_learning_rate,
        "batch_size": settings.batch_size,
    }
    return replace(
        cell,
        estimator=NoGradient.name if plain else cell.estimator,
        estimator_settings={} if plain else cell.estimator_settings,
        training=TrainingSettings(**training).model_dump(),
        evaluation={},
        seed=-1 - cell.seed,  # no run has it
        gradients=None,
        timing=False,
    )


def warm_start(
    cell: Cell,
    folder: Path | None,
    data_dir: Path | None = None,
    device: str = "cpu",
    report: Callable[[float], None] = lambda share: None,
) -> Tensor | None:
    """The parameters that a cell starts from, (N,); None if it has no warm start.

    Args:
        cell: whose start it is.
        folder: where trained models are kept, and found again; None for nowhere.
        data_dir: folder with the data sets that are not bundled.
        device: where to.
        report: called with the share that is done, in [0, 1].
    Raises:
        DivergedError: the training diverged.
        DataError: a data set is missing or damaged.
    """
    start = warm_start_of(cell)
    if start is None:
        return None
    path = None if folder is None else folder / start.key / "warm-start.pt"
    found: Tensor | None = None if path is None else load(path, device)
    if found is not None:
        return found
    trainer = _LabelsAlone(start, data_dir, device)
    while trainer.step < trainer.steps:
        trainer.train(min(REPORT_EVERY, trainer.steps - trainer.step))
        report(trainer.step / trainer.steps)
    if path is not None:
        save(trainer.parameters, path)
    return trainer.parameters


class _LabelsAlone(Trainer):
    """Trains on batches that have labels throughout."""

    def __init__(self, cell: Cell, data_dir: Path | None, device: str) -> None:
        super().__init__(cell, data_dir, device)
        self.steps = self.settings.warm_start_epochs * self.task.labelled_steps_per_epoch

    def _batch(self) -> object:
        return self.task.labelled_batch(self.step, self.streams)
