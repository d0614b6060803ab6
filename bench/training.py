"""Training of one cell: build, warm up, train, evaluate on a schedule."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.cells import Cell
from bench.evaluation import EvaluationSettings, evaluate
from bench.profiles import TrainingSettings
from bench.step import CountedCost, training_loss
from estimators.base import Estimator, Latent
from estimators.registry import all_estimators
from estimators.sampler import Sampler
from tasks.base import Split, Task
from tasks.data import DataError, load_images
from tasks.registry import all_tasks
from tasks.streams import Streams, derive_seed

WARM_UP_STEPS = 3
"""Steps of a throw-away copy before the clock starts: first calls allocate and compile."""

REPORT_EVERY = 10
"""Steps between reports of progress."""

Row = dict[str, Any]


class DivergedError(Exception):
    """The loss or a gradient stopped being finite."""


class Trainer:
    """A cell in training: task, estimator, optimizer, and the step that they are at.

    Args:
        cell: what to train.
        data_dir: folder with the data sets that are not bundled.
        device: where to, such as "cpu" or "cuda".
    Raises:
        DataError: a data set is missing or damaged, or too small for a batch.
    """

    def __init__(self, cell: Cell, data_dir: Path | None = None, device: str = "cpu") -> None:
        self.cell = cell
        self.settings = TrainingSettings(**cell.training)
        self.evaluation = EvaluationSettings(**cell.evaluation)
        self.streams = Streams(cell.seed, device)
        self.task = _build_task(cell, self.settings, data_dir).to(device)
        if self.task.steps_per_epoch < 1:
            raise DataError(
                f"{cell.task} has fewer rows than a batch of {self.settings.batch_size}: "
                "lower the setting batch_size"
            )
        self.estimator = _build_estimator(cell, self.task).to(device)
        self.cost = CountedCost(self.task)
        s = self.settings
        groups: list[dict[str, Any]] = [
            {"params": [*self.task.parameters()], "weight_decay": s.weight_decay},
            {"params": [*self.estimator.parameters()], "lr": s.baseline_learning_rate},
        ]
        self.optimizer = torch.optim.Adam(
            [group for group in groups if group["params"]], lr=s.learning_rate, fused=True
        )
        self.step = 0
        self.rows = 0
        self.train_seconds = 0.0

    @property
    def steps(self) -> int:
        """Steps of the whole training, the warm start included."""
        epochs = self.settings.warm_start_epochs + self.settings.epochs
        return epochs * self.task.steps_per_epoch

    def train(self, steps: int) -> None:
        """Take some steps, on the clock.

        Raises:
            DivergedError: the loss is not finite.
        """
        start = time.perf_counter()
        for _ in range(steps):
            self._step()
        self._synchronise()
        self.train_seconds += time.perf_counter() - start

    def _step(self) -> None:
        step = self.step
        warm_start = self.settings.warm_start_epochs * self.task.steps_per_epoch
        self.optimizer.zero_grad()
        result = training_loss(
            self.task,
            self.estimator,
            self.cost,
            self.task.training_batch(step, self.streams),
            Sampler(self.streams.generator("estimator", step)),
            latent=step >= warm_start,
        )
        if not torch.isfinite(result.loss):
            raise DivergedError(f"the loss is {result.objective.item()} at step {step}")
        if result.loss.requires_grad:
            result.loss.backward()
            self.optimizer.step()
        if result.update is not None:
            with torch.no_grad():
                self.estimator.update(*result.update)
        self.rows += result.rows
        self.step += 1

    def _synchronise(self) -> None:
        if self.streams.device.startswith("cuda"):
            torch.cuda.synchronize()

    def gradient_norm(self) -> float | None:
        """Norm of the last step's gradient for encoder and decoder; None before the first step."""
        gradients = [p.grad for p in self.task.parameters() if p.grad is not None]
        if not gradients:
            return None
        return float(nn.utils.get_total_norm(gradients))

    def evaluate(self, split: Split) -> Row:
        """A row of the results table, without what is the same for all rows of the cell.

        Raises:
            DivergedError: the loss is not finite.
        """
        calls = self.cost.calls
        metrics = evaluate(
            self.task, self.estimator, self.cost, self.evaluation, split, self.streams
        )
        if not math.isfinite(metrics["loss"] or 0.0):
            raise DivergedError(f"the {split} loss is {metrics['loss']} at step {self.step}")
        return {
            "epoch": self.step / self.task.steps_per_epoch,
            "step": self.step,
            "split": split,
            "train_seconds": self.train_seconds,
            "decoder_calls_total": calls["latent"],
            "supervised_calls_total": calls["supervised"],
            "examples": self.rows,
            "latent_size": self.task.size,
            "chance": self.task.chance,
            "gradient_norm": self.gradient_norm(),
            **metrics,
        }


def train_cell(
    cell: Cell,
    data_dir: Path | None = None,
    device: str = "cpu",
    report: Callable[[float], None] = lambda fraction: None,
) -> list[Row]:
    """Train a cell to its end: a row for each evaluation on validation, and one on test.

    Args:
        cell: what to train.
        data_dir: folder with the data sets that are not bundled.
        device: where to.
        report: called with the share that is done, in [0, 1].
    Raises:
        DivergedError: the loss stopped being finite.
        DataError: a data set is missing or damaged.
    """
    Trainer(cell, data_dir, device).train(WARM_UP_STEPS)
    trainer = Trainer(cell, data_dir, device)
    every = trainer.settings.evaluate_every * trainer.task.steps_per_epoch
    rows = [trainer.evaluate("validation")]
    while trainer.step < trainer.steps:
        following = min(trainer.step + every, trainer.steps)
        while trainer.step < following:
            trainer.train(min(REPORT_EVERY, following - trainer.step))
            report(trainer.step / trainer.steps)
        rows.append(trainer.evaluate("validation"))
    rows.append(trainer.evaluate("test"))
    for before, row in zip([None, *rows], rows, strict=False):
        row["decoder_calls"] = _calls_per_example(row, before if row["split"] != "test" else None)
    return rows


def _calls_per_example(row: Row, before: Row | None) -> float | None:
    """Latent decoder calls for each example since an earlier row, or since the start."""
    calls, examples = row["decoder_calls_total"], row["examples"]
    if before is not None:
        calls, examples = calls - before["decoder_calls_total"], examples - before["examples"]
    return calls / examples if examples else None


@contextmanager
def _seeded(seed: int, name: str) -> Iterator[None]:
    """Layers initialise themselves from the global generator: seed it, and put it back after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, name))
        yield


def _build_task(cell: Cell, training: TrainingSettings, data_dir: Path | None) -> Task:
    task_class = all_tasks()[cell.task]
    settings = task_class.Settings(**cell.task_settings)
    images = load_images(settings.dataset, data_dir)
    with _seeded(cell.seed, "parameters"):
        return task_class(images, settings, training.batch_size)


def _build_estimator(cell: Cell, task: Task) -> Estimator:
    latent = Latent(task.family, task.size, task.features)
    with _seeded(cell.seed, "estimator parameters"):
        return all_estimators()[cell.estimator].make(latent, **cell.estimator_settings)
