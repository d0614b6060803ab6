"""Runs of the decoder: costs, their slopes at points, and the decoder's own gradient.

One backward pass gives the decoder's gradient Σ wᵢ ∂fᵢ/∂θ and, at the points, wᵢ ∂fᵢ/∂pointᵢ: the
slope is that over wᵢ, so that it costs no pass of its own and knows no weight.
"""

from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

Context = tuple[Tensor, ...]
"""What a cost reads beside z: tensors with a row for each example, computed once a batch. They
may carry a graph."""

Cost = Callable[[Context, Tensor, Tensor], Tensor]
"""f(context, z, row): costs (N,), in nats, of assignments z (N, …) for rows (N,) of the context. A
cost depends on its own assignment alone."""


class Wanted(NamedTuple):
    """Assignments to evaluate, and what for."""

    z: Shaped[Tensor, "N *z"]
    row: Int[Tensor, " N"]
    weight: Float[Tensor, " N"] | None
    """Of each cost in the decoder's gradient; None where it is not known yet."""
    slopes: Bool[Tensor, " N"] | slice | bool
    """Where the slope is wanted."""


class Run(NamedTuple):
    """What the decoder gave."""

    costs: Float[Tensor, " N"]
    """Detached, unless the weights are not known yet."""
    slopes: Float[Tensor, "M *point"] | None
    term: Float[Tensor, ""] | None
    """Its gradient is the decoder's; None where the weights are not known yet: then the costs carry
    the graph."""


def run(cost: Cost, context: Context, wanted: Wanted, at_once: int | None) -> Run:
    """Evaluate assignments.

    Args:
        cost: f.
        context: what it reads.
        wanted: the assignments.
        at_once: None leaves all of the decoder's gradient to the backward pass of `term`; slopes
            then cost a pass of their own. A number lets the decoder's backward pass be run here,
            for so many assignments at once: where there are more, or slopes are wanted, the
            gradients of its parameters are accumulated when this returns, and `term` brings what is
            due to the context.
    """
    z, row, weight, slopes = wanted.z.detach(), wanted.row, wanted.weight, wanted.slopes
    if at_once is not None and weight is not None and (slopes is not False or len(row) > at_once):
        return _run_at_once(cost, context, Wanted(z, row, weight, slopes), at_once)
    points = z.requires_grad_(slopes is not False)
    costs = cost(context, points, row)
    found = None
    if slopes is not False:
        (found,) = torch.autograd.grad(costs.sum(), points, retain_graph=True)
        found = chosen(found, slopes)
    if weight is None:
        return Run(costs, found, None)
    return Run(costs.detach(), found, (weight * costs).sum())


def _run_at_once(cost: Cost, context: Context, wanted: Wanted, at_once: int) -> Run:
    """The same with the decoder's backward pass, chunk by chunk."""
    z, row, weight, slopes = wanted
    assert weight is not None
    leaves = tuple(t.detach().requires_grad_(t.requires_grad) for t in context)
    parts: list[tuple[slice | Tensor, Tensor, Tensor | None]] = []
    for chunk, weighted in _chunks(wanted, at_once):
        points = z[chunk].requires_grad_(slopes is not False)
        some, own = cost(leaves, points, row[chunk]), weight[chunk]
        if not weighted:  # a backward pass to the points alone
            (points.grad,) = torch.autograd.grad(some.sum(), points)
        elif some.requires_grad:
            some.backward(own)
            if points.grad is not None:
                points.grad /= own.view(-1, *[1] * (z.dim() - 1))
        parts.append((chunk, some.detach(), points.grad))
    due = [
        torch.dot(tensor.flatten(), leaf.grad.flatten())
        for tensor, leaf in zip(context, leaves, strict=True)
        if leaf.grad is not None
    ]  # and if nothing is, there is a backward pass all the same
    term = reduce(add, due) if due else weight.new_zeros(()).requires_grad_()
    costs, found = _whole(parts, len(row), slopes is not False)
    return Run(costs, None if found is None else chosen(found, slopes), term)


def _whole(
    parts: list[tuple[slice | Tensor, Tensor, Tensor | None]], count: int, with_slopes: bool
) -> tuple[Tensor, Tensor | None]:
    """Costs (N,), and slopes where they are wanted, from those of chunks."""
    _, costs, slopes = parts[0]
    if len(parts) == 1:
        return costs, slopes if with_slopes else None
    costs = costs.new_empty(count)
    slopes = None if slopes is None else slopes.new_zeros(count, *slopes.shape[1:])
    for chunk, some, slope in parts:
        costs[chunk] = some
        if slopes is not None and slope is not None:
            slopes[chunk] = slope
    return costs, slopes


def _chunks(wanted: Wanted, at_once: int) -> Iterator[tuple[slice | Tensor, bool]]:
    """Parts of at most so many assignments, and whether the decoder learns from them.

    It does not where a slope is wanted at weight zero, which can't be had by dividing by it.
    """
    weight, count = wanted.weight, len(wanted.row)
    assert weight is not None
    if wanted.slopes is not False:
        least = torch.finfo(weight.dtype).tiny ** 0.5
        if count and float(weight.abs().min()) < least:
            free = weight.abs() < least
            if not isinstance(wanted.slopes, slice):
                free = free & wanted.slopes
            for those, weighted in ((~free, True), (free, False)):
                for part in those.nonzero().squeeze(1).split(at_once):
                    if len(part):
                        yield part, weighted
            return
    for start in range(0, max(1, count), at_once):
        yield slice(start, min(start + at_once, count)), True


def chosen(slopes: Tensor, where: Tensor | slice | bool) -> Tensor:
    """Those that are wanted."""
    return slopes if where is True else slopes[where]
