"""One training step: where a task and an estimator meet.

The harness holds the only copy of the cost and counts its calls, and runs all backward passes.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from estimators.base import Estimate, Estimator, Proposal
from estimators.distributions import Categorical
from estimators.sampler import Sampler
from tasks.base import Context, Encoding, Task

MAX_ACTIVATION = 2**25
"""Numbers in the largest activation of one decoder run (128 MiB in float32)."""

Purpose = Literal["latent", "supervised", "evaluation"]


@dataclass
class CountedCost:
    """The cost f(x, z) of a task, with a count of the assignments evaluated for each purpose."""

    task: Task
    purpose: Purpose = "latent"
    calls: Counter[Purpose] = field(default_factory=Counter)

    def __call__(self, context: Context, z: Tensor, row: Tensor) -> Tensor:
        """Costs (N,), in nats, of assignments z (N, ...) for rows (N,) of the context."""
        self.calls[self.purpose] += len(row)
        return self.task.cost(context, z, row)

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
    update: tuple[Proposal, Tensor] | None
    """What the estimator's `update` takes after the step."""
    diagnostics: dict[str, Tensor]
    """What the estimator has to say of itself: scalars by name."""


def training_loss(
    task: Task,
    estimator: Estimator,
    cost: CountedCost,
    batch: object,
    sampler: Sampler,
    latent: bool = True,
    entropy_weight: float | None = None,
) -> StepResult:
    """The loss of a batch whose gradient is the estimator's.

    Where the decoder runs in several chunks, their gradients for its parameters are already
    accumulated when this returns, and the loss brings the rest: clear the gradients before, and
    call `backward` on the loss after.

    Args:
        latent: false for the supervised part alone.
        entropy_weight: λ, in place of the task's.
    Raises:
        NotFiniteError: the scores are not finite.
    """
    encoding = task.encode(batch)
    if not encoding.scores.isfinite().all():
        raise NotFiniteError("the scores are not finite")
    result = StepResult(encoding.scores.new_zeros(()), encoding.scores.new_zeros(()), 0, None, {})
    if latent and estimator.trains_latent:
        weight = task.entropy_weight if entropy_weight is None else entropy_weight
        result = latent_loss(task, estimator, cost, encoding, sampler, weight)
    if encoding.supervised is not None:
        supervised = task.supervised_loss(
            encoding.supervised,
            lambda scores, target: label_loss(estimator, scores, target),
            cost.counting("supervised"),
        )
        result = result._replace(
            loss=result.loss + supervised, objective=result.objective + supervised.detach()
        )
    return result


def label_loss(estimator: Estimator, scores: Tensor, target: Tensor) -> Tensor:
    """The loss on labels (B,) that belongs to the estimator's distribution, (B,)."""
    q = estimator.distribution(scores)
    assert isinstance(q, Categorical)
    return q.fenchel_young_loss(target)


def latent_loss(
    task: Task,
    estimator: Estimator,
    cost: CountedCost,
    encoding: Encoding,
    sampler: Sampler,
    entropy_weight: float,
) -> StepResult:
    """The weighted mean of E_q[f] − λ H(q) over rows."""
    q = estimator.distribution(encoding.scores)
    proposal = estimator.propose(q, encoding.features, sampler)
    scale = task.latent_weight / len(encoding.scores)
    costs, decoder_term = evaluate_costs(cost, encoding.context, proposal, scale)
    estimate = estimator.combine(q, proposal, costs.detach())
    if decoder_term is None:
        decoder_term = _weighted(estimate, costs) * scale
    entropy = q.entropy().sum()
    loss = decoder_term - scale * entropy_weight * estimate.scale * entropy
    if estimate.surrogate is not None:
        loss = loss + scale * estimate.surrogate.sum()
    if estimate.own_loss is not None:
        loss = loss + estimate.own_loss
    objective = scale * (estimate.objective.sum() - entropy_weight * entropy.detach())
    update = (proposal, costs.detach())
    return StepResult(loss, objective, len(encoding.scores), update, estimate.diagnostics)


def _weighted(estimate: Estimate, costs: Tensor) -> Tensor:
    if estimate.decoder_weight is None:
        raise TypeError("neither the proposal nor the estimate has decoder weights")
    return (estimate.decoder_weight.detach() * costs).sum()


def evaluate_costs(
    cost: CountedCost, context: Context, proposal: Proposal, scale: float
) -> tuple[Tensor, Tensor | None]:
    """The costs of a proposal, and a scalar whose gradient is the decoder's and the pathwise one.

    With weights known in advance and more assignments than fit, chunks are run and freed one
    after the other, and the scalar only carries what is due to the context and to z.

    Returns:
        costs (N,), and the scalar; None in its place where the weights are not known yet: then
        the costs carry the graph.
    """
    z, row, weight = proposal.z, proposal.row, proposal.decoder_weight
    path = proposal.pathwise_weight
    if weight is None:
        if path is not None:
            raise TypeError("a proposal with pathwise weights has to give decoder weights as well")
        return cost(context, z.detach(), row), None
    weight = scale * weight.detach()
    joint = path is None or path is proposal.decoder_weight
    if joint and len(row) <= cost.at_once:
        costs = cost(context, z if path is not None else z.detach(), row)
        return costs.detach(), (weight * costs).sum()

    leaves = tuple(t.detach().requires_grad_(t.requires_grad) for t in context)
    points = z.detach().requires_grad_(path is not None)
    slopes = torch.zeros_like(z)
    parts = []
    for chunk in torch.arange(len(row), device=row.device).split(cost.at_once):
        costs = cost(leaves, points[chunk], row[chunk])
        if path is not None:
            through_z = (scale * path.detach()[chunk] * costs).sum()
            slopes += torch.autograd.grad(through_z, points, retain_graph=True)[0]
        (weight[chunk] * costs).sum().backward()
        parts.append(costs.detach())
    term = (z * slopes).sum() if path is not None else weight.new_zeros(())
    for tensor, leaf in zip(context, leaves, strict=True):
        if leaf.grad is not None:
            term = term + (tensor * leaf.grad).sum()
    return torch.cat(parts), term
