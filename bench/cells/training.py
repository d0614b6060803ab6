"""A model in training: its steps on the clock, its evaluation off it, and all of its state."""

import json
import math
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.cells.building import build_estimator, build_task, latent_of, task_data
from bench.cells.cell import Cell
from bench.cells.evaluation import EvaluationSettings, evaluate
from bench.cells.step import CountedCost, NotFiniteError, training_loss
from bench.cells.tracing import GradientTrace, encoder_of
from bench.profiles.profile import TrainingSettings
from estimators.sampler import Sampler
from tasks.base import Split
from tasks.data.base import DataError
from tasks.streams import Streams

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
        device: where to, such as "cpu" or "cuda:1".
    Raises:
        DataError: a data set is missing or damaged, another than the cell's, or too small for a
            batch.
    """

    def __init__(self, cell: Cell, data_dir: Path | None = None, device: str = "cpu") -> None:
        data = task_data(cell.task, cell.task_settings, data_dir)
        if data.digest != cell.dataset_digest:
            raise DataError(
                f"{data.name} has other content here, or now, than the run was planned with: give "
                "all machines the same files, and run the same command again"
            )
        self.settings = TrainingSettings(**cell.training)
        self.evaluation = EvaluationSettings(**cell.evaluation)
        self.last_split = cell.last_split
        self.streams = Streams(cell.seed, device)
        s = self.settings
        self.task = build_task(cell.task, cell.task_settings, s.batch_size, cell.seed, data_dir).to(
            device
        )
        self.estimator = build_estimator(
            cell.estimator, cell.estimator_settings, latent_of(self.task), cell.seed
        ).to(device)
        self.cost = CountedCost(self.task)
        self.flat = flattened(self.task)
        groups: list[dict[str, Any]] = [{"params": [self.flat], "weight_decay": s.weight_decay}]
        if any(True for _ in self.estimator.parameters()):
            own = flattened(self.estimator)
            groups.append({"params": [own], "lr": s.baseline_learning_rate})
        self.optimizer = torch.optim.Adam(groups, lr=s.learning_rate, fused=True)
        self.steps = s.epochs * self.task.steps_per_epoch
        self.step = 0
        self.rows = 0
        self.train_seconds = 0.0
        self.gradient_norm: Tensor | None = None
        self.trace: GradientTrace | None = None
        if self.task.traces_variance:
            scores = self.task.encode(self._batch()).scores
            self.trace = GradientTrace(encoder_of(self.task, scores))
        self._diagnostics: dict[str, list[Tensor]] = defaultdict(list)

    def train(self, steps: int) -> None:
        """Take some steps, on the clock, and trace their gradients off it.

        Raises:
            DivergedError: the loss or a gradient is not finite.
        """
        start = time.perf_counter()
        try:
            for _ in range(steps):
                loss = self._step()
                start += self._traced()
            if steps and loss.requires_grad:
                self._check(loss.detach())
        except NotFiniteError as error:
            raise DivergedError(f"{error} at step {self.step}") from error
        wait_for(self.streams.device)
        self.train_seconds += time.perf_counter() - start

    def _step(self) -> Tensor:
        """Take a step; its loss."""
        self.optimizer.zero_grad(set_to_none=False)  # they are views
        result = training_loss(
            self.task,
            self.estimator,
            self.cost,
            self._batch(),
            Sampler(self.streams.generator("estimator", self.step)),
            entropy_weight=self.settings.entropy_weight,
        )
        if result.loss.requires_grad:
            result.loss.backward()
            self.optimizer.step()
        if result.update is not None:
            with torch.no_grad():
                self.estimator.update(*result.update)
        for name, value in {"objective": result.objective, **result.diagnostics}.items():
            self._diagnostics[name].append(value.detach())  # a graph would be kept till a look
        self.rows += result.rows
        self.step += 1
        return result.loss

    def _traced(self) -> float:
        """Trace the gradient of the step that was taken, if it is to be; the seconds it took."""
        if self.trace is None:
            return 0.0
        wait_for(self.streams.device)
        start = time.perf_counter()
        self.trace.add()
        wait_for(self.streams.device)
        return time.perf_counter() - start

    def _batch(self) -> object:
        return self.task.training_batch(self.step, self.streams)

    def _check(self, loss: Tensor) -> None:
        """Note the norm of the last step's gradient for encoder and decoder, if all is finite.

        Once for many steps: what is not finite stays so, and the next step's scores tell as well.
        """
        assert self.flat.grad is not None
        self.gradient_norm = self.flat.grad.norm()
        if not torch.isfinite(loss + self.gradient_norm):
            raise NotFiniteError(
                f"the loss is {loss.item():.3g} and the gradient's norm {self.gradient_norm:.3g}"
            )

    def evaluate(self, split: Split, last: bool = False) -> Row:
        """A row of the results table, without what is the same for all rows of the cell.

        Args:
            split: what to evaluate on.
            last: with what is too costly for a look on the way, −log p(x).
        Raises:
            DivergedError: the loss is not finite.
        """
        calls = self.cost.calls
        try:
            metrics = evaluate(
                self.task, self.estimator, self.cost, self.evaluation, split, self.streams, last
            )
        except NotFiniteError as error:
            raise DivergedError(f"{error} on {split} at step {self.step}") from error
        if not math.isfinite(metrics["loss"] or 0.0):
            raise DivergedError(f"the {split} loss is {metrics['loss']} at step {self.step}")
        norm = None if self.gradient_norm is None else float(self.gradient_norm)
        return {
            "epoch": self.step / self.task.steps_per_epoch,
            "step": self.step,
            "split": split,
            "train_seconds": self.train_seconds,
            "decoder_calls_total": calls["latent"],
            "slopes_total": calls["slopes"],
            "oracle_calls_total": calls["oracle"],
            "supervised_calls_total": calls["supervised"],
            "examples": self.rows,
            "latent_size": self.task.space.size,
            "chance": self.task.chance,
            "gradient_norm": norm,
            "gradient_variance": None if self.trace is None else self.trace.variance(),
            "diagnostics": self._take_diagnostics(),
            **metrics,
        }

    @property
    def parameters(self) -> Tensor:
        """All parameters of the task, which are to be written into, (N,)."""
        return self.flat.detach()

    def state(self) -> dict[str, Any]:
        """All that changes in training, as tensors and plain values that go on changing."""
        return {
            "parameters": self.parameters,
            "estimator": self.estimator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "rows": self.rows,
            "calls": dict(self.cost.calls),
            "train_seconds": self.train_seconds,
            "gradient_norm": self.gradient_norm,
            "trace": None if self.trace is None else self.trace.state(),
            "diagnostics": dict(self._diagnostics),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` was, in another process perhaps."""
        self.parameters.copy_(state["parameters"])
        self.estimator.load_state_dict(state["estimator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.rows = state["step"], state["rows"]
        self.cost.calls.update(state["calls"])
        self.train_seconds = state["train_seconds"]
        self.gradient_norm = state["gradient_norm"]
        if self.trace is not None:
            self.trace.restore(state["trace"])
        self._diagnostics.update(state["diagnostics"])

    def _take_diagnostics(self) -> str | None:
        """Means over the steps since they were last taken, as JSON."""
        means = {name: float(torch.stack(v).mean()) for name, v in self._diagnostics.items()}
        self._diagnostics.clear()
        return json.dumps(means, sort_keys=True) if means else None


def wait_for(device: torch.device | str) -> None:
    """Wait until a GPU has done what it was asked for: a clock that is read before is too early."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def flattened(module: nn.Module) -> nn.Parameter:
    """All parameters of a module as one, of which they become views, and so do their gradients.

    The optimizer then has one tensor to look after and not dozens of small ones.
    """
    parts = [*module.parameters()]
    flat = nn.Parameter(torch.cat([part.detach().flatten() for part in parts]))
    flat.grad = torch.zeros_like(flat)
    places = torch.tensor([part.numel() for part in parts]).cumsum(0).tolist()
    for part, end in zip(parts, places, strict=True):
        here = slice(end - part.numel(), end)
        part.data, part.grad = flat.data[here].view_as(part), flat.grad[here].view_as(part)
    return flat
