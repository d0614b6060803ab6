"""The step: where scores, an estimator and a cost meet.

The step holds the only copy of the cost and runs all backward passes; the estimator sees numbers.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import Estimate, Estimator, Evaluated, Proposal
from estimators.decoder import Context, Cost, Wanted, chosen, run
from estimators.sampler import Sampler
from estimators.shapes import check_costs, check_estimate, check_proposal, check_scores
from estimators.spaces.base import Space
from estimators.spaces.distribution import Distribution


class Step(NamedTuple):
    """A step's loss, ready for its backward pass, and what was seen on the way."""

    loss: Float[Tensor, ""]
    """Its gradient is the estimate for all parameters, the estimator's own included."""
    objective: Float[Tensor, ""]
    """Detached: the estimated objective, of which `loss` has the gradient."""
    proposal: Proposal
    evaluated: Evaluated
    estimate: Estimate
    """The three that the estimator's `update` takes after the step."""
    beside: Float[Tensor, " M"]
    """Detached: costs of what went through the decoder beside the proposal."""


def take_step(
    estimator: Estimator,
    scores: Float[Tensor, "B *scores"],
    features: Float[Tensor, "B F"],
    cost: Cost,
    context: Context,
    sampler: Sampler,
    *,
    entropy_weight: float,
    scale: float,
    beside: Wanted | None = None,
    at_once: int | None = None,
) -> Step:
    """`scale` times the sum over rows of the estimator's objective, E_q[f] − λ H(q) by default.

    Args:
        estimator: says what q is.
        scores: of q, with the encoder's graph.
        features: the inputs, for baselines.
        cost: f.
        context: what it reads.
        sampler: all randomness.
        entropy_weight: λ.
        scale: of the sum: 1/B for a mean.
        beside: further assignments for the same run of the decoder, with their weights; their
            weighted costs are part of `loss`, not of `objective`.
        at_once: see `run`; with a number the gradient of the estimator's own loss may be
            accumulated when this returns, too.
    Raises:
        ShapeError: the estimator gives a tensor of a wrong shape.
    """
    q = estimator.distribution(scores)
    proposal = estimator.propose(q, features, sampler)
    check_proposal(estimator, proposal)
    count, weight = len(proposal.row), proposal.decoder_weight
    scaled = None if weight is None else scale * weight.detach()
    wanted = Wanted(proposal.z, proposal.row, scaled, proposal.slopes)
    if beside is not None:
        wanted = _joined(estimator.space, wanted, beside)
    costs, slopes, term = run(cost, context, wanted, at_once)
    own, others = costs[:count], costs[count:]
    several = estimator.objective == "multi-sample"
    evaluated, log_q = Evaluated(own.detach(), slopes), None
    if estimator.log_q_in_costs:
        evaluated, log_q = _with_log_q(estimator, evaluated, q, proposal, entropy_weight, several)
    estimate = estimator.combine(q, proposal, evaluated)
    check_estimate(estimator, estimate, scores, count)
    if term is None:
        if estimate.decoder_weight is None:
            raise TypeError("neither the proposal nor the estimate has decoder weights")
        term = scale * (estimate.decoder_weight.detach() * own).sum()
        if beside is not None:
            assert beside.weight is not None
            term = term + (beside.weight * others).sum()
    loss, objective = term, estimate.objective.sum()
    if log_q is None:
        entropy = (q.entropy() if estimate.entropy is None else estimate.entropy).sum()
        loss = loss - scale * entropy_weight * estimate.scale * entropy
        objective = objective - entropy_weight * entropy.detach()
    elif several:  # costs weigh unequally, and q has a part of each
        assert estimate.decoder_weight is not None
        loss = loss + scale * entropy_weight * (estimate.decoder_weight.detach() * log_q).sum()
    if estimate.surrogate is not None:
        loss = loss.add(estimate.surrogate.sum(), alpha=scale)
    if estimate.own_loss is not None:
        loss = loss + _confined(estimate.own_loss, estimator, now=at_once is not None)
    return Step(loss, scale * objective, proposal, evaluated, estimate, others.detach())


def _with_log_q(
    estimator: Estimator,
    evaluated: Evaluated,
    q: Distribution,
    proposal: Proposal,
    weight: float,
    graph: bool,
) -> tuple[Evaluated, Float[Tensor, " N"]]:
    """Costs f + λ log q(z), with their slopes, and log q(z), with the scores' graph or without."""
    z, sloped = proposal.z.detach(), evaluated.slopes is not None
    if "z" in proposal.extras:
        z = z.unflatten(0, (len(q.scores), -1))
    else:  # not as many for each row: every assignment has a row of its own
        z, q = z[:, None], estimator.distribution(q.scores[proposal.row])
    z.requires_grad_(sloped)
    with torch.set_grad_enabled(graph or sloped):
        log_q = q.log_prob(z).flatten()
    costs, slopes = evaluated.costs + weight * log_q.detach(), evaluated.slopes
    if slopes is not None:
        (own,) = torch.autograd.grad(log_q.sum(), z, retain_graph=True)
        slopes = slopes + weight * chosen(own.flatten(0, 1), proposal.slopes)
    return Evaluated(costs, slopes), log_q


def _joined(space: Space, proposal: Wanted, beside: Wanted) -> Wanted:
    """The assignments of both, first those of the proposal; all are points where these are."""
    z, row, weight, slopes = proposal
    other = beside.z
    if z.is_floating_point() and not other.is_floating_point():
        other = space.point(other, z.dtype)
    if slopes is True:
        slopes = slice(len(row))
    elif isinstance(slopes, Tensor):
        slopes = torch.cat([slopes, torch.zeros_like(beside.row, dtype=torch.bool)])
    if weight is not None and beside.weight is not None:
        weight = torch.cat([weight, beside.weight])
    return Wanted(torch.cat([z, other]), torch.cat([row, beside.row]), weight, slopes)


class _Confined(torch.autograd.Function):
    """A value whose gradients are known already."""

    @staticmethod
    def forward(ctx, value, gradients, *parameters):  # type: ignore[no-untyped-def]
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx, slope):  # type: ignore[no-untyped-def]
        return None, None, *(None if g is None else slope * g for g in ctx.gradients)


def _confined(own_loss: Float[Tensor, ""], estimator: Estimator, now: bool) -> Float[Tensor, ""]:
    """An estimator's own loss, whose gradient reaches its own parameters and no others, whatever
    it was computed from.

    One that leads to these alone is part of the step's backward pass. Another has one of its own:
    now, or in the backward pass of what is returned.
    """
    own = [parameter for parameter in estimator.parameters() if parameter.requires_grad]
    value = own_loss.detach()
    if not own:
        return value
    if _leads_to(own_loss, own):
        return own_loss
    if now:
        torch.autograd.backward(own_loss, inputs=own, retain_graph=True)
        return value
    gradients = torch.autograd.grad(own_loss, own, retain_graph=True, allow_unused=True)
    later: Tensor = _Confined.apply(value, gradients, *own)  # type: ignore[no-untyped-call]
    return later


def _leads_to(value: Tensor, leaves: Sequence[Tensor]) -> bool:
    """Whether a value's graph has no other leaves; one of few nodes is looked through in a moment,
    and the first strange leaf of any ends it."""
    known = {id(leaf) for leaf in leaves}
    todo, seen = [value.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            return False
        todo += [following for following, _ in node.next_functions]
    return True


def expected_cost(
    estimator: Estimator,
    scores: Float[Tensor, "B *scores"],
    cost: Callable[[Tensor, Tensor], Tensor],
    *,
    entropy_weight: float = 1.0,
    features: Float[Tensor, "B F"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """The mean over rows of E_q[f(z)] − λ H(q), estimated, with the estimator's gradient.

    Call `backward` on it, or on a loss that it is part of. Where the estimator is in training mode
    and gradients are enabled, its state moves on by a step. Of no rows it is 0, and nothing moves.

    Args:
        estimator: as `make` gives it. Give its parameters, if it has any, to the optimizer: to have
            it as a submodule of the model is enough.
        scores: of q, from the encoder.
        cost: f(z, row), (N,) in nats: the costs of N assignments (N, *z), of which each belongs to
            a row of the batch. z are points (N, *point) where the estimator `takes_slopes`;
            `space.point(z)` gives points of either. A cost depends on its own assignment alone, and
            on nothing that is drawn in it.
        entropy_weight: λ.
        features: the inputs x, for estimators that were made with their number.
        generator: of all that is drawn; torch's own of the device by default.
    Raises:
        ValueError: features are missing, or a tensor is of a wrong shape; the message says which.
    """
    check_scores(estimator, scores)
    if not len(scores):  # nor anything for the state to follow: a mean over no rows is no number
        return scores.sum()
    if features is None:
        if estimator.features:
            raise ValueError(f"{estimator.name} has a network of the inputs: give features")
        features = scores.new_zeros(len(scores), 0)

    def checked(context: Context, z: Tensor, row: Tensor) -> Tensor:
        costs = cost(z, row)
        check_costs("the cost", costs, len(row))
        return costs

    learns = torch.is_grad_enabled()
    with torch.enable_grad():  # the slopes of a cost are wanted in any case
        step = take_step(
            estimator, scores, features, checked, (), Sampler(generator),
            entropy_weight=entropy_weight, scale=1 / len(scores),
        )  # fmt: skip
    if not learns:
        return step.objective
    if estimator.training:
        with torch.no_grad():
            estimator.update(step.proposal, step.evaluated, step.estimate)
    return step.loss + (step.objective - step.loss).detach()
