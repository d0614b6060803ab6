"""One training step: where a task and an estimator meet.

The step itself is `estimators.step`, for anybody's model; here are the task's cost, counted, and
the labels that go through the decoder with the rest.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

from estimators.base import Estimate, Estimator, Evaluated, Proposal
from estimators.decoder import Wanted, run
from estimators.sampler import Sampler
from estimators.shapes import check_costs
from estimators.step import take_step
from tasks.base import Context, Encoding, Supervised, Task

MAX_ACTIVATION = 2**25
"""Numbers in the largest activation of one decoder run (128 MiB in float32)."""

Purpose = Literal["latent", "supervised", "evaluation", "slopes", "oracle"]
"""What a call is counted for: costs, of the latent part of training and others; in that part,
derivatives of a cost at an assignment, and rows that the MAP oracle of the space was asked for."""


@dataclass
class CountedCost:
    """The cost f(x, z) of a task, with a count of the assignments evaluated for each purpose."""

    task: Task
    purpose: Purpose = "latent"
    calls: Counter[Purpose] = field(default_factory=Counter)

    def __call__(self, context: Context, z: Tensor, row: Tensor) -> Tensor:
        """Costs (N,), in nats, of assignments z (N, ...) for rows (N,) of the context.

        Raises:
            ShapeError: the task gives them in another shape.
        """
        self.calls[self.purpose] += len(row)
        costs = self.task.cost(context, z, row)
        check_costs(f"cost of {self.task.name}", costs, len(row))
        return costs

    def recount(self, calls: int, purpose: Purpose) -> None:
        """Say that some of the calls were for another purpose."""
        self.calls[self.purpose] -= calls
        self.calls[purpose] += calls

    def counting(self, purpose: Purpose) -> "CountedCost":
        """The same cost, and the same counts, for another purpose."""
        return CountedCost(self.task, purpose, self.calls)

    @property
    def at_once(self) -> int:
        """Assignments that fit into one run of the decoder."""
        return max(1, MAX_ACTIVATION // self.task.activation_size)


class NotFiniteError(ArithmeticError):
    """A number that the step needs is infinite or not a number; the message says which."""


class StepResult(NamedTuple):
    """A step's loss, ready for its backward pass, and what was seen on the way."""

    loss: Tensor
    """Scalar; its gradient is the estimate for all parameters, the estimator's own included."""
    objective: Tensor
    """Scalar, detached: the estimated training loss, of which `loss` has the gradient."""
    rows: int
    """Rows whose latent variable was proposed for."""
    update: tuple[Proposal, Evaluated, Estimate] | None
    """What the estimator's `update` takes after the step."""
    diagnostics: dict[str, Tensor]
    """What the estimator has to say of itself: scalars by name."""
    scale: Tensor | float = 1.0
    """What the estimate multiplies the gradient of the scores by."""


def training_loss(
    task: Task,
    estimator: Estimator,
    cost: CountedCost,
    batch: object,
    sampler: Sampler,
    entropy_weight: float | None = None,
) -> StepResult:
    """The loss of a batch whose gradient is the estimator's.

    Gradients of an estimator's own loss, and those of a decoder that runs in several chunks or is
    asked for slopes, may be accumulated already when this returns, and the loss brings the rest:
    clear the gradients before, and call `backward` on the loss after.

    Args:
        entropy_weight: λ, in place of the task's.
    Raises:
        NotFiniteError: the scores are not finite.
    """
    encoding = task.encode(batch)
    if not math.isfinite(encoding.scores.detach().sum()):  # in one call; isfinite().all() takes six
        raise NotFiniteError("the scores are not finite")
    nothing = encoding.scores.new_zeros(())
    result = StepResult(nothing, nothing, 0, None, {})
    if len(encoding.scores) and estimator.trains_latent:
        weight = task.entropy_weight if entropy_weight is None else entropy_weight
        result = latent_loss(task, estimator, cost, encoding, sampler, weight)
    elif encoding.supervised is not None:
        labels = _labelled(encoding.supervised)
        costs, _, term = run(cost, encoding.context, labels, cost.at_once)
        cost.recount(len(costs), "supervised")
        assert term is not None
        result = result._replace(loss=term, objective=_mean(costs))
    if encoding.supervised is not None:
        known = label_loss(estimator, encoding.supervised)
        result = result._replace(
            loss=result.loss + known, objective=result.objective + known.detach()
        )
    return result


def label_loss(estimator: Estimator, part: Supervised) -> Tensor:
    """The mean loss on labels that belongs to the estimator's distribution."""
    return _mean(estimator.distribution(part.scores).label_loss(part.target))


def latent_loss(
    task: Task,
    estimator: Estimator,
    cost: CountedCost,
    encoding: Encoding,
    sampler: Sampler,
    entropy_weight: float,
) -> StepResult:
    """The weighted mean of E_q[f] − λ H(q) over rows, and the mean cost of those with a label.

    Both go through the decoder together: one run of more rows is faster than two.

    Raises:
        ShapeError: the task or the estimator gives a tensor of a wrong shape.
    """
    scores, labels = encoding.scores, encoding.supervised
    asked = estimator.space.oracle_calls
    step = take_step(
        estimator,
        scores,
        encoding.features,
        cost,
        encoding.context,
        sampler,
        entropy_weight=entropy_weight,
        scale=task.latent_weight / len(scores),
        beside=None if labels is None else _labelled(labels),
        at_once=cost.at_once,
    )
    cost.recount(len(step.beside), "supervised")
    if step.evaluated.slopes is not None:
        cost.calls["slopes"] += len(step.evaluated.slopes)
    cost.calls["oracle"] += estimator.space.oracle_calls - asked
    return StepResult(
        loss=step.loss,
        objective=step.objective + _mean(step.beside),
        rows=len(scores),
        update=(step.proposal, step.evaluated, step.estimate),
        diagnostics=step.estimate.diagnostics,
        scale=step.estimate.scale,
    )


def _mean(values: Tensor) -> Tensor:
    """The mean of values (N,), a scalar; 0 where there are none."""
    return values.mean() if len(values) else values.sum()


def _labelled(part: Supervised) -> Wanted:
    """The labels as assignments, of which the mean cost is wanted."""
    weight = part.scores.new_full((len(part.row),), 1 / max(1, len(part.row)))
    return Wanted(part.target, part.row, weight, False)
