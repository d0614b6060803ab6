"""One training step: where a task and an estimator meet.

The harness holds the only copy of the cost and counts its calls, and runs all backward passes.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.cells.shapes import check_costs, check_estimate, check_proposal
from estimators.base import Estimator, Proposal
from estimators.distributions.base import Categorical
from estimators.sampler import Sampler
from tasks.base import Context, Encoding, Supervised, Task

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
        """Costs (N,), in nats, of assignments z (N, ...) for rows (N,) of the context.

        Raises:
            ShapeError: the task gives them in another shape.
        """
        self.calls[self.purpose] += len(row)
        costs = self.task.cost(context, z, row)
        check_costs(self.task, costs, len(row))
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
    update: tuple[Proposal, Tensor] | None
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

    Where the decoder runs in several chunks, their gradients for its parameters are already
    accumulated when this returns, and the loss brings the rest: clear the gradients before, and
    call `backward` on the loss after.

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
        costs, term = evaluate_costs(cost, encoding.context, _labelled(encoding.supervised))
        cost.recount(len(costs), "supervised")
        assert term is not None
        result = result._replace(loss=term, objective=_mean(costs))
    if encoding.supervised is not None:
        labels = label_loss(estimator, encoding.supervised)
        result = result._replace(
            loss=result.loss + labels, objective=result.objective + labels.detach()
        )
    return result


def label_loss(estimator: Estimator, part: Supervised) -> Tensor:
    """The mean loss on labels that belongs to the estimator's distribution."""
    q = estimator.distribution(part.scores)
    assert isinstance(q, Categorical)
    return _mean(q.fenchel_young_loss(part.target))


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
    q = estimator.distribution(encoding.scores)
    proposal = estimator.propose(q, encoding.features, sampler)
    check_proposal(estimator, proposal)
    rows, count = len(encoding.scores), len(proposal.row)
    scale = task.latent_weight / rows
    everything = _scaled(proposal, scale)
    if encoding.supervised is not None:
        everything = _joined(everything, _labelled(encoding.supervised))
    every_cost, term = evaluate_costs(cost, encoding.context, everything)
    costs, of_labels = every_cost[:count], every_cost[count:]
    cost.recount(len(of_labels), "supervised")
    known = _mean(of_labels)
    estimate = estimator.combine(q, proposal, costs.detach())
    check_estimate(estimator, estimate, encoding.scores, count)
    if term is None:
        if estimate.decoder_weight is None:
            raise TypeError("neither the proposal nor the estimate has decoder weights")
        term = scale * (estimate.decoder_weight.detach() * costs).sum() + known
    entropy = q.entropy().sum()
    loss = term - scale * entropy_weight * estimate.scale * entropy
    if estimate.surrogate is not None:
        loss = loss + scale * estimate.surrogate.sum()
    if estimate.own_loss is not None:
        loss = loss + estimate.own_loss
    objective = scale * (estimate.objective.sum() - entropy_weight * entropy.detach())
    return StepResult(
        loss=loss,
        objective=objective + known.detach(),
        rows=rows,
        update=(proposal, costs.detach()),
        diagnostics=estimate.diagnostics,
        scale=estimate.scale,
    )


def _mean(values: Tensor) -> Tensor:
    """The mean of values (N,), a scalar; 0 where there are none."""
    return values.mean() if len(values) else values.sum()


def _labelled(part: Supervised) -> Proposal:
    """The labels as assignments, of which the mean cost is wanted."""
    weight = part.scores.new_full((len(part.row),), 1 / max(1, len(part.row)))
    return Proposal(part.target, part.row, weight)


def _scaled(proposal: Proposal, scale: float) -> Proposal:
    """The same assignments, with weights times a factor."""
    weight, path = proposal.decoder_weight, proposal.pathwise_weight
    scaled = None if weight is None else scale * weight.detach()
    scaled_path = None if path is None else scaled if path is weight else scale * path.detach()
    return Proposal(proposal.z, proposal.row, scaled, scaled_path)


def _joined(proposal: Proposal, labelled: Proposal) -> Proposal:
    """The assignments of both, first those of the proposal; labels are points where these are."""
    z, target = proposal.z, labelled.z
    if z.is_floating_point():
        target = F.one_hot(target, z.shape[1]).to(z.dtype)
    weight, path = proposal.decoder_weight, proposal.pathwise_weight
    assert labelled.decoder_weight is not None
    both = None if weight is None else torch.cat([weight, labelled.decoder_weight])
    if path is not None:  # what weight constant labels have there does not matter
        path = both if path is weight else torch.cat([path, labelled.decoder_weight])
    return Proposal(torch.cat([z, target]), torch.cat([proposal.row, labelled.row]), both, path)


def evaluate_costs(
    cost: CountedCost, context: Context, proposal: Proposal
) -> tuple[Tensor, Tensor | None]:
    """The costs of a proposal, and a scalar whose gradient is the decoder's and the pathwise one.

    With weights known in advance and more assignments than fit, chunks are run and freed one
    after the other, and the scalar only carries what is due to the context and to z.

    Returns:
        costs (N,), and the scalar; None in its place where the weights are not known yet: then
        the costs carry the graph.
    """
    z, row, weight = proposal.z, proposal.row, proposal.decoder_weight
    if weight is None:
        if proposal.pathwise_weight is not None:
            raise TypeError("a proposal with pathwise weights has to give decoder weights as well")
        return cost(context, z.detach(), row), None
    path = proposal.pathwise_weight if z.requires_grad else None
    joint = path is None or path is weight
    if joint and len(row) <= cost.at_once:
        costs = cost(context, z if path is not None else z.detach(), row)
        return costs.detach(), (weight * costs).sum()

    leaves = tuple(t.detach().requires_grad_(t.requires_grad) for t in context)
    points = z.detach().requires_grad_(path is not None)
    slopes = torch.zeros_like(z)
    term = weight.new_zeros(())
    parts = []
    for chunk in torch.arange(len(row), device=row.device).split(cost.at_once):
        costs = cost(leaves, points[chunk], row[chunk])
        parts.append(costs.detach())
        if not costs.requires_grad:
            continue
        if path is not None:
            through_z = (path[chunk] * costs).sum()
            slopes += torch.autograd.grad(through_z, points, retain_graph=True)[0]
        (weight[chunk] * costs).sum().backward()
        term.requires_grad_()  # the loss has a backward pass, be there nothing left for it
    if path is not None:
        term = term + (z * slopes).sum()
    for tensor, leaf in zip(context, leaves, strict=True):
        if leaf.grad is not None:
            term = term + (tensor * leaf.grad).sum()
    return torch.cat(parts), term
