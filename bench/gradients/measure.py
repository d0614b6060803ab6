"""Gradient quality: estimates at fixed parameters against the exact gradient, by enumeration.

At fixed parameters the gradient of the objective is estimated again and again for each of a few
fixed batches, in float64, and compared with the exact gradient for that batch, of the objective
that the estimator itself targets: the sum over the support of its own q. What an estimate has in
the place of the entropy of q is compared with that entropy. A draw is one estimate for each batch.
Squares are means over the batches: ‖e‖² of their ‖e‖², ‖bias‖² of their ‖bias‖², and the variance
is that of an estimate around its batch's mean, in which the batches' differences have no part.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from bench.cells.step import CountedCost, Purpose, latent_loss
from bench.cells.tracing import encoder_of
from bench.cells.training import Row, Trainer, wait_for
from bench.gradients.statistics import BLOCKS, Draws, Quality
from estimators.base import Estimator
from estimators.sampler import Sampler
from estimators.spaces.distribution import Distribution, FiniteDistribution
from estimators.summed.support_sum import SupportSum
from tasks.base import Context, Encoding, Task

GROUPS = ("scores", "encoder", "decoder")
"""What a gradient is taken for: q's scores; the parameters that they depend on; all others."""

ByGroup = dict[str, Tensor]
"""A gradient (P,) for each of `GROUPS`."""

WARM_UP_STEP = 2 * 10**9
"""The step whose batch is the first of the warm-up: no training comes that far."""

FASTER = 10
"""A baseline network is as good after 100 steps so as after 600 at the rate of training alone."""

SUMMED_AT_ONCE = 2**16
"""Assignments that an exact gradient is summed over at a time, unless one row has more."""

CONSTANT_AFTER = 3
"""Draws after which a sum whose draws are all equal is taken to have no variance."""

DOUBTED = 8
"""Times the most draws that are made where a bias is found against the estimator's own account."""

Report = Callable[[float], None]
"""Told of the share that is done, in [0, 1]."""


class GradientSettings(BaseModel, extra="forbid", frozen=True):
    """How gradients are measured."""

    checkpoints: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.0, 0.05, 0.25, 1.0),
        min_length=1,
        description="shares of the training done; settings are turned at the last alone",
    )
    calls: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (4, 16), description="decoder calls a row that every sampler is measured at"
    )
    batches: int = Field(4, ge=1, description="fixed batches")
    warm_up: int = Field(200, ge=0, description="steps that warm the estimator's own state")
    precision: float = Field(
        0.02, gt=0, description="half-width of the bias's interval to stop at, of the exact norm"
    )
    draws: int = Field(4096, ge=BLOCKS, description="most estimates for each batch")


class _OwnSum(SupportSum):
    """The exact sum under the distribution of another estimator."""

    name = "exact"

    def __init__(self, other: Estimator) -> None:
        super().__init__(other.space, other.settings)
        self._other = (other,)  # hidden from nn.Module: its parameters are not ours

    @property
    def calls_per_row(self) -> int:
        return 0

    def distribution(self, scores: Tensor) -> Distribution:
        return self._other[0].distribution(scores)


class _CostOfRows(CountedCost):
    """A cost that takes rows of a part of the batch."""

    def __init__(self, task: Task, part: Tensor) -> None:
        super().__init__(task)
        self._part = part

    def __call__(self, context: Context, z: Tensor, row: Tensor) -> Tensor:
        return super().__call__(context, z, self._part[row])


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
        encoder = encoder_of(task, encoding.scores)
        reached = {id(parameter) for parameter in encoder}
        decoder = [p for p in task.parameters() if id(p) not in reached]
        self.groups = {"encoder": encoder, "decoder": decoder}

    def _encode(self) -> Encoding:
        return self.task.encode(self.batch)._replace(supervised=None)

    def estimate(self, estimator: Estimator, sampler: Sampler) -> ByGroup:
        """One estimate, without the factor that it is scaled by."""
        return self._estimate(estimator, sampler, self._encode(), self.cost)

    def _estimate(
        self, estimator: Estimator, sampler: Sampler, encoding: Encoding, cost: CountedCost
    ) -> ByGroup:
        self.task.zero_grad()
        encoding.scores.retain_grad()
        result = latent_loss(self.task, estimator, cost, encoding, sampler, self.entropy_weight)
        result.loss.backward()
        assert encoding.scores.grad is not None
        found = {"scores": encoding.scores.grad.flatten()}
        for group, parameters in self.groups.items():
            slopes = (torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
            flat = [found["scores"].new_empty(0), *(slope.flatten() for slope in slopes)]
            found[group] = torch.cat(flat)  # of none where the cost has no parameters
        for group in ("scores", "encoder"):
            found[group] = found[group] / result.scale
        return found

    def exact(self, estimator: Estimator, report: Report = lambda share: None) -> ByGroup:
        """The gradient that the estimator's estimates are of: a sum over the support of its q.

        It goes through the batch a few rows at a time where the support is large, so that memory
        is that of `SUMMED_AT_ONCE` assignments.
        """
        own, nothing = _OwnSum(estimator), Sampler(torch.Generator())
        with torch.no_grad():
            q = own.distribution(self._encode().scores)
        assert isinstance(q, FiniteDistribution)
        sizes = q.support_sizes
        at_once = max(1, SUMMED_AT_ONCE // int(sizes.max()))
        found: list[ByGroup] = []
        for part in torch.arange(self.rows, device=sizes.device).split(at_once):
            whole, weight = self._encode(), len(part) / self.rows
            rows = whole._replace(scores=whole.scores[part], features=whole.features[part])
            slopes = self._estimate(own, nothing, rows, _CostOfRows(self.task, part))
            slopes = {group: weight * slope for group, slope in slopes.items()}
            if found:  # one sum, whatever the number of parts
                for group in ("encoder", "decoder"):
                    slopes[group] += found[-1].pop(group)
            found.append(slopes)
            report((int(part[-1]) + 1) / self.rows)
        return found[-1] | {"scores": torch.cat([slopes["scores"] for slopes in found])}


def joint(gradients: Sequence[ByGroup]) -> ByGroup:
    """Gradients for M batches as one of which squared norms are the mean of theirs."""
    scale = math.sqrt(len(gradients))
    return {name: torch.cat([one[name] for one in gradients]) / scale for name in GROUPS}


def warm_up(trainer: Trainer, steps: int) -> None:
    """Bring an estimator's own state to where it would be at the task's parameters.

    Its own parameters, a baseline network's say, start afresh: their learning rate falls from
    `FASTER` times that of training to that of training. The batches are further ones of training.
    """
    if not trainer.estimator.state_dict():
        return
    own = [*trainer.estimator.parameters()]
    rate = trainer.settings.baseline_learning_rate
    optimizer = torch.optim.Adam(own, lr=rate) if own else None
    for number in range(steps):
        batch = trainer.task.training_batch(WARM_UP_STEP + number, trainer.streams)
        encoding = trainer.task.encode(batch)._replace(supervised=None)
        sampler = Sampler(trainer.streams.generator("warm-up", number))
        if optimizer is not None:
            optimizer.zero_grad()
        result = latent_loss(
            trainer.task, trainer.estimator, trainer.cost, encoding, sampler,
            trainer.task.entropy_weight,
        )  # fmt: skip
        if optimizer is not None:
            optimizer.param_groups[0]["lr"] = rate * (1 + (FASTER - 1) * (1 - number / steps))
            result.loss.backward()
            optimizer.step()
        assert result.update is not None
        with torch.no_grad():
            trainer.estimator.update(*result.update)


def measure(
    batches: Sequence[Gradients],
    estimator: Estimator,
    exact: ByGroup,
    sampler_of: Callable[[int, int], Sampler],
    settings: GradientSettings,
    report: Report = lambda share: None,
) -> tuple[dict[str, Quality], Row]:
    """The quality of an estimator's estimates for each group, and what they cost.

    Draws double until the bias is known to the precision asked for, or there are enough. Where one
    is found that the estimator should not have, they go on doubling: outcomes that are too rare for
    any of the draws to have seen are missing from mean and interval alike. A sum that does not vary
    is drawn no more than it takes to see that.

    Args:
        batches: the fixed batches, at the same parameters.
        exact: their exact gradients, as one.
        sampler_of: the randomness of a draw (its number) for a batch (its number).
    """
    for gradients in batches:
        gradients.cost.calls.clear()
    found = {name: Draws(exact[name]) for name in GROUPS}
    device = exact["scores"].device
    first: ByGroup = {}
    varies, number, seconds = estimator.bias != "exact", 0, 0.0
    while True:
        wait_for(device)
        start = time.perf_counter()
        drawn = joint(
            [one.estimate(estimator, sampler_of(number, b)) for b, one in enumerate(batches)]
        )
        wait_for(device)
        seconds += time.perf_counter() - start
        number += 1
        first = first or drawn
        for name, draws in found.items():
            draws.add(drawn[name])
            varies = varies or not torch.equal(drawn[name], first[name])
        report(min(1.0, number / settings.draws))
        if number == CONSTANT_AFTER and not varies:
            break
        if found["scores"].full:
            qualities = [draws.quality() for draws in found.values()]
            width = max(quality.relative_width for quality in qualities)
            doubted = estimator.bias != "biased" and any(q.bias_low > 0 for q in qualities)
            most = settings.draws * (DOUBTED if doubted else 1)
            if (width <= settings.precision and not doubted) or 2 * number > most:
                break
    calls: Counter[Purpose] = sum((one.cost.calls for one in batches), Counter())
    rows = number * sum(one.rows for one in batches)
    return {name: draws.quality() for name, draws in found.items()}, {
        "draws": number,
        "decoder_calls": calls["latent"] / rows,
        "slopes": calls["slopes"] / rows,
        "oracle_calls": calls["oracle"] / rows,
        "seconds": seconds / (number * len(batches)),
    }
