"""A cell that measures gradients: its model at some points of training, and its rows.

A model is trained by one chosen estimator and kept at its checkpoints, each with the exact
gradients under softmax or independent bits, so that every cell finds both there.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from bench.cells.cell import Cell
from bench.cells.tensors import save
from bench.cells.training import REPORT_EVERY, Row, Trainer
from bench.cells.warm_start import warm_start
from bench.gradients.measure import (
    ByGroup,
    Gradients,
    GradientSettings,
    Report,
    joint,
    measure,
    warm_up,
)
from estimators.base import Estimator
from estimators.sampler import Sampler
from estimators.summed.support_sum import Dense

FIXED_STEP = 10**9
"""The step whose batch is the first of the fixed ones: no training comes that far."""


class Checkpoint(NamedTuple):
    """A model at a point of its training, in files."""

    step: int
    home: Path

    @property
    def model(self) -> Path:
        """The task's state, in float32."""
        return self.home / f"{self.step}.pt"

    def plain(self, batch: int) -> Path:
        """The exact gradient under softmax or independent bits for a fixed batch, in float64."""
        return self.home / f"{self.step}-exact-{batch}.pt"


def model_of(cell: Cell) -> Cell:
    """The training of the model that a cell measures gradients of."""
    assert cell.gradients is not None
    return replace(cell, gradients=None, **cell.gradients["model"])


def settings_of(cell: Cell) -> GradientSettings:
    """How a cell measures gradients."""
    assert cell.gradients is not None
    return GradientSettings(**cell.gradients["settings"])


def checkpoints(
    cell: Cell,
    folder: Path,
    data_dir: Path | None = None,
    device: str = "cpu",
    report: Report = lambda share: None,
) -> dict[float, Checkpoint]:
    """A cell's model at the shares of its training that gradients are measured at.

    What is in the folder already stays as it is; the rest is made.

    Raises:
        DivergedError: the training diverged.
    """
    settings, model = settings_of(cell), model_of(cell)
    trainer = Trainer(model, data_dir, device)
    shares = sorted(settings.checkpoints)
    found = {s: Checkpoint(round(s * trainer.steps), folder / model.key) for s in shares}
    parts = len(found) + 1
    if not all(checkpoint.model.exists() for checkpoint in found.values()):
        start = warm_start(model, folder, data_dir, device)
        if start is not None:
            trainer.parameters.copy_(start)
        _train(trainer, [*found.values()], _part(report, 0, parts))
    for number, checkpoint in enumerate(found.values(), 1):
        _enumerate(trainer, checkpoint, settings.batches, _part(report, number, parts))
    return found


def _part(report: Report, number: int, parts: int) -> Report:
    """Reports of one of several parts, as those of the whole."""
    return lambda share: report((number + share) / parts)


def _train(trainer: Trainer, wanted: list[Checkpoint], report: Report) -> None:
    """Keep the model at some points of its training."""
    for checkpoint in wanted:
        while trainer.step < checkpoint.step:
            trainer.train(min(REPORT_EVERY, checkpoint.step - trainer.step))
            report(trainer.step / trainer.steps)
        state = trainer.task.state_dict()  # of views: a view is saved with all that it views
        save({name: value.clone() for name, value in state.items()}, checkpoint.model)


def _enumerate(trainer: Trainer, checkpoint: Checkpoint, batches: int, report: Report) -> None:
    """Keep the exact gradients at a checkpoint for each fixed batch."""
    if all(checkpoint.plain(number).exists() for number in range(batches)):
        return
    load(trainer, checkpoint)
    dense = Dense.make(trainer.task.space)
    for number, gradients in enumerate(fixed_batches(trainer, batches)):
        exact = gradients.exact(dense, _part(report, number, batches))
        save(exact, checkpoint.plain(number))


def load(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Give the trainer's task the parameters of a checkpoint, in float64."""
    trainer.task.load_state_dict(torch.load(checkpoint.model, map_location=trainer.streams.device))
    trainer.task.double()


def fixed_batches(trainer: Trainer, batches: int) -> list[Gradients]:
    """The fixed batches at the trainer's parameters."""
    task = trainer.task
    drawn = (task.training_batch(FIXED_STEP + i, trainer.streams) for i in range(batches))
    return [Gradients(task, batch, task.entropy_weight) for batch in drawn]


def gradient_cell(
    cell: Cell,
    folder: Path,
    data_dir: Path | None = None,
    device: str = "cpu",
    report: Report = lambda share: None,
) -> Iterator[Row]:
    """Measure a cell's estimator at each checkpoint: a row for each group of parameters.

    Args:
        cell: what to measure; `gradients` says how, and on which model.
        folder: where trained models are kept.
        data_dir: folder with the data sets that are not bundled.
        device: where to.
        report: called with the share that is done, in [0, 1].
    Raises:
        DivergedError: the model's training diverged.
    """
    assert cell.gradients is not None
    settings, models = settings_of(cell), checkpoints(cell, folder, data_dir, device, report)
    shares = [*models][-1:] if cell.gradients["knob"] else [*models]
    for number, share in enumerate(shares):
        trainer = Trainer(cell, data_dir, device)
        load(trainer, models[share])
        trainer.estimator.double()
        warm_up(trainer, settings.warm_up)
        here = _part(report, number, len(shares))
        for row in _rows(trainer, models[share], settings, here):
            yield {"share": share, "step": models[share].step, **row}


def _rows(
    trainer: Trainer, checkpoint: Checkpoint, settings: GradientSettings, report: Report
) -> Iterator[Row]:
    """Measure at a checkpoint, whose parameters the trainer has."""
    estimator = trainer.estimator
    batches = fixed_batches(trainer, settings.batches)
    files = (checkpoint.plain(number) for number in range(settings.batches))
    plain: list[ByGroup] = [torch.load(f, map_location=trainer.streams.device) for f in files]
    own = plain if _has_plain_q(estimator) else [one.exact(estimator) for one in batches]
    exact, reference = joint(own), joint(plain)

    def sampler_of(draw: int, batch: int) -> Sampler:
        return Sampler(trainer.streams.generator(f"draw of batch {batch}", draw))

    found, cost = measure(batches, estimator, exact, sampler_of, settings, report)
    for group, values in found.items():
        yield {
            **cost,
            **values._asdict(),
            "group": group,
            "declared": estimator.bias,
            "size": exact[group].numel() // settings.batches,
            "batches": settings.batches,
            "mean_squared_error": values.mean_squared_error,
            "signal_to_noise": values.signal_to_noise,
            "objective_distance": float((exact[group] - reference[group]).norm()),
            "plain_norm": float(reference[group].norm()),
        }


def _has_plain_q(estimator: Estimator) -> bool:
    """Whether an estimator trains softmax, or independent bits."""
    return type(estimator).distribution is Estimator.distribution
