"""Gradient quality: estimates at fixed parameters against the exact gradient, by enumeration.

A model is trained by one chosen estimator, and kept at some points of its training. At each, the
gradient of the objective for one fixed batch is estimated again and again, in float64, and
compared with the exact gradient of the objective that the estimator itself targets: the sum over
the support of its own q. How far that is from the gradient under softmax, or independent bits, is
reported apart.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from bench.cells import Cell
from bench.files import written_whole
from bench.gradient_statistics import BLOCKS, Quality, joined, quality
from bench.step import CountedCost, latent_loss
from bench.training import REPORT_EVERY, Row, Trainer
from estimators.base import Estimator
from estimators.distributions import Distribution
from estimators.sampler import Sampler
from estimators.support_sum import Dense, SupportSum
from tasks.base import Encoding, Task

GROUPS = ("scores", "encoder", "decoder")
"""What a gradient is taken for: q's scores; the parameters that they depend on; all others."""

FIXED_STEP = 10**9
"""The step whose batch is the fixed one: no training comes that far."""


class GradientSettings(BaseModel, extra="forbid", frozen=True):
    """How gradients are measured."""

    checkpoints: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.0, 0.05, 0.25, 1.0), min_length=1, description="shares of the training done"
    )
    warm_up: int = Field(200, ge=0, description="steps that warm the estimator's own state")
    precision: float = Field(
        0.02, gt=0, description="half-width of the bias's interval to stop at, of the exact norm"
    )
    draws: int = Field(4096, ge=BLOCKS, description="most estimates")


class _OwnSum(SupportSum):
    """The exact sum under the distribution of another estimator."""

    name = "exact"

    def __init__(self, other: Estimator) -> None:
        super().__init__(other.latent, other.settings)
        self._other = (other,)  # hidden from nn.Module: its parameters are not ours

    @property
    def calls_per_row(self) -> int:
        return 0

    def distribution(self, scores: Tensor) -> Distribution:
        return self._other[0].distribution(scores)


class Gradients:
    """Estimates of one model's gradient for a fixed batch.

    Args:
        task: the model, in float64, at the parameters to measure at.
        batch: the fixed batch; labels in it are left out.
        entropy_weight: λ.
    """

    def __init__(self, task: Task, batch: object, entropy_weight: float) -> None:
        self.task, self.batch, self.entropy_weight = task, batch, entropy_weight
        self.cost = CountedCost(task)
        encoding = self._encode()
        self.rows = len(encoding.scores)
        parameters = [*task.parameters()]
        through = torch.autograd.grad(encoding.scores.sum(), parameters, allow_unused=True)
        reached = [gradient is not None for gradient in through]
        self.groups = {
            "encoder": [p for p, there in zip(parameters, reached, strict=True) if there],
            "decoder": [p for p, there in zip(parameters, reached, strict=True) if not there],
        }

    def _encode(self) -> Encoding:
        return self.task.encode(self.batch)._replace(supervised=None)

    def estimate(self, estimator: Estimator, sampler: Sampler) -> dict[str, Tensor]:
        """One estimate for each of `GROUPS`, flat; without the factor that it is scaled by."""
        self.task.zero_grad()
        encoding = self._encode()
        encoding.scores.retain_grad()
        result = latent_loss(
            self.task, estimator, self.cost, encoding, sampler, self.entropy_weight
        )
        result.loss.backward()
        assert encoding.scores.grad is not None
        found = {"scores": encoding.scores.grad.flatten()}
        for group, parameters in self.groups.items():
            slopes = (torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
            found[group] = torch.cat([slope.flatten() for slope in slopes])
        for group in ("scores", "encoder"):
            found[group] = found[group] / result.scale
        return found

    def exact(self, estimator: Estimator) -> dict[str, Tensor]:
        """The gradient that the estimator's estimates are of."""
        return self.estimate(_OwnSum(estimator), Sampler(torch.Generator()))


def warm_up(trainer: Trainer, steps: int) -> None:
    """Bring an estimator's own state to where it would be at the task's parameters."""
    own = [*trainer.estimator.parameters()]
    optimizer = torch.optim.Adam(own, lr=trainer.settings.baseline_learning_rate) if own else None
    for number in range(steps):
        batch = trainer.task.training_batch(FIXED_STEP + 1 + number, trainer.streams)
        encoding = trainer.task.encode(batch)._replace(supervised=None)
        sampler = Sampler(trainer.streams.generator("warm-up", number))
        result = latent_loss(
            trainer.task, trainer.estimator, trainer.cost, encoding, sampler,
            trainer.task.entropy_weight,
        )  # fmt: skip
        if optimizer is not None:
            optimizer.zero_grad()
            result.loss.backward()
            optimizer.step()
        assert result.update is not None
        with torch.no_grad():
            trainer.estimator.update(*result.update)


def measure(
    gradients: Gradients,
    estimator: Estimator,
    exact: dict[str, Tensor],
    sampler_of: Callable[[int], Sampler],
    settings: GradientSettings,
) -> tuple[dict[str, Quality], Row]:
    """The quality of an estimator's estimates for each group, and what they cost.

    Draws double until the bias is known to the precision asked for, or there are enough; an
    estimate that does not vary is drawn no more than it takes to see that.
    """
    gradients.cost.calls.clear()
    number, start = 0, time.perf_counter()

    def block(draws: int) -> dict[str, Tensor]:
        nonlocal number
        drawn = [gradients.estimate(estimator, sampler_of(number + i)) for i in range(draws)]
        number += draws
        return {name: sum(one[name] for one in drawn) / draws for name in GROUPS}  # type: ignore[misc]

    draws, blocks = 1, [block(1) for _ in range(4)]
    varies = any(not torch.equal(blocks[0][name], b[name]) for b in blocks for name in GROUPS)
    means = {name: torch.stack([b[name] for b in blocks]) for name in GROUPS}
    found = {name: quality(means[name], exact[name], draws) for name in GROUPS}
    while varies:
        more = [block(draws) for _ in range(BLOCKS - len(means["scores"]))]
        means = {n: torch.cat([means[n], *(b[n][None] for b in more)]) for n in GROUPS}
        found = {name: quality(means[name], exact[name], draws) for name in GROUPS}
        if max(q.relative_width for q in found.values()) <= settings.precision:
            break
        if 2 * number > settings.draws:
            break
        means, draws = {name: joined(value) for name, value in means.items()}, 2 * draws
    return found, {
        "draws": number,
        "decoder_calls": gradients.cost.calls["latent"] / (number * gradients.rows),
        "seconds": (time.perf_counter() - start) / number,
    }


def model_of(cell: Cell) -> Cell:
    """The training of the model that a cell measures gradients of."""
    assert cell.gradients is not None
    return replace(cell, gradients=None, **cell.gradients["model"])


def trained_models(
    cell: Cell,
    folder: Path,
    data_dir: Path | None = None,
    device: str = "cpu",
    report: Callable[[float], None] = lambda share: None,
) -> dict[float, tuple[int, dict[str, Tensor]]]:
    """Step and parameters of a cell's model at each share of its training, from a folder or anew.

    Raises:
        DivergedError: the training diverged.
    """
    assert cell.gradients is not None
    model = model_of(cell)
    trainer = Trainer(model, data_dir, device)
    shares = GradientSettings(**cell.gradients["settings"]).checkpoints
    steps = {share: round(share * trainer.steps) for share in shares}
    files = {step: folder / model.key / f"{step}.pt" for step in steps.values()}
    if not all(path.exists() for path in files.values()):
        for step in sorted(files):
            while trainer.step < step:
                trainer.train(min(REPORT_EVERY, step - trainer.step))
                report(trainer.step / trainer.steps)
            with written_whole(files[step]) as file:
                state = trainer.task.state_dict()  # of views: a view is saved with all it views
                torch.save({name: value.clone() for name, value in state.items()}, file)
    return {
        share: (step, torch.load(files[step], map_location=device)) for share, step in steps.items()
    }


def gradient_cell(
    cell: Cell,
    folder: Path,
    data_dir: Path | None = None,
    device: str = "cpu",
    report: Callable[[float], None] = lambda share: None,
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
    settings = GradientSettings(**cell.gradients["settings"])
    models = trained_models(cell, folder, data_dir, device)
    for number, (share, (step, state)) in enumerate(models.items()):
        trainer = Trainer(cell, data_dir, device)
        trainer.task.load_state_dict(state)
        trainer.task.double()
        trainer.estimator.double()
        if trainer.estimator.trains_latent:
            warm_up(trainer, settings.warm_up)
        yield from _rows(trainer, settings, {"share": share, "step": step})
        report((number + 1) / len(models))


def _rows(trainer: Trainer, settings: GradientSettings, common: Row) -> Iterator[Row]:
    """Measure at the trainer's parameters."""
    task, estimator, streams = trainer.task, trainer.estimator, trainer.streams
    gradients = Gradients(task, task.training_batch(FIXED_STEP, streams), task.entropy_weight)
    exact = gradients.exact(estimator)
    plain = gradients.exact(Dense.make(estimator.latent))
    found, cost = measure(
        gradients, estimator, exact, lambda i: Sampler(streams.generator("draw", i)), settings
    )
    for group, values in found.items():
        yield (
            common
            | cost
            | values._asdict()
            | {
                "group": group,
                "size": exact[group].numel(),
                "mean_squared_error": values.mean_squared_error,
                "objective_distance": float((exact[group] - plain[group]).norm()),
                "plain_norm": float(plain[group].norm()),
            }
        )
