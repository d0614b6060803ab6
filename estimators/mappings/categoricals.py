"""Independent categorical variables: the k best assignments, sparsemax over them, and SparseMAP.

V variables of C categories have scores (B, V, C). An assignment gives each variable a category,
(V,) int64; its score is the sum of those of its categories, and its point is V one-hots, (V, C).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from estimators.mappings.finite import check_finite, mapping
from estimators.mappings.support import least, sparsemax


class TopKAssignments(NamedTuple):
    """Sparsemax restricted to the k best assignments of every row."""

    assignments: Tensor
    """(B, k, V) int64, best first, distinct within a row."""
    probabilities: Tensor
    """(B, k), differentiable in the scores; zero outside the support."""


class SparseAssignments(NamedTuple):
    """A distribution over few assignments whose mean point is SparseMAP's marginals."""

    assignments: Tensor
    """(B, M, V) int64; distinct within a row where the probability is positive."""
    probabilities: Tensor
    """(B, M), differentiable in the scores; zero for padding only."""
    marginals: Tensor
    """(B, V, C): sparsemax of the scores of each variable, differentiable in them."""


@mapping
def top_assignments(scores: Tensor, k: int) -> Tensor:
    """The k assignments of highest score for every row, best first.

    Losses against the best assignment are added, so that what scores have in common costs no
    digits. Changing the best one in one variable gives V (C − 1) others; next to it, the k − 1
    best of them are k assignments already, so that the k best need no other changes. A variable
    at place p, in order of how many of these changes are its own, has (k − 1) / (p + 1) at most.

    Args:
        scores: (B, V, C), any floating dtype.
        k: 1 to C^V.
    Returns:
        (B, k, V) int64, without gradient.
    Raises:
        TypeError: the scores are no floating-point numbers.
        ValueError: k is out of range, or a score is not finite.
    """
    rows, variables, categories = scores.shape
    if k < 1 or k > categories ** min(variables, 64):  # 2^64 is above any k
        every = f"{categories}^{variables}"
        raise ValueError(f"k = {k} assignments were asked for, of {every}: take 1 to {every}")
    check_finite(scores)
    ranked, order = scores.detach().topk(min(categories, k), dim=2)
    losses = ranked[:, :, :1] - ranked
    others = losses[:, :, 1:].flatten(1)
    least = others.topk(min(k - 1, others.shape[1]), dim=1, largest=False).indices
    owners = least // max(losses.shape[2] - 1, 1)
    counts = torch.zeros_like(order[:, :, 0]).scatter_add(1, owners, torch.ones_like(owners))
    places = counts.topk(max(1, min(variables, k - 1)), dim=1).indices[:, :, None]
    found = _least_sums(losses.gather(1, places.expand(-1, -1, losses.shape[2])), k)
    ranks = order.new_zeros(rows, variables, k).scatter(1, places.expand(-1, -1, k), found)
    return order.gather(2, ranks).transpose(1, 2)


@mapping
def topk_sparsemax_categoricals(scores: Tensor, k: int) -> TopKAssignments:
    """Top-k sparsemax (Correia et al. 2020, section 4.1): sparsemax over the k best assignments.

    Args:
        scores: (B, V, C), any floating dtype.
        k: 1 to C^V; with k = C^V this is the full sparsemax.
    Raises:
        TypeError: the scores are no floating-point numbers.
        ValueError: k is out of range, or a score is not finite.
    """
    assignments = top_assignments(scores, k)
    chosen = scores.gather(2, assignments.transpose(1, 2))
    # Sparsemax ignores what all have in common, next to which a difference would be rounded away.
    differences = (chosen - chosen[:, :, :1]).sum(dim=1)
    return TopKAssignments(assignments, sparsemax(differences))


@mapping
def sparsemap_categoricals(scores: Tensor) -> SparseAssignments:
    """SparseMAP over assignments (Niculae et al. 2018), in closed form.

    The marginals are sparsemax of each variable. Of the distributions that have them this is the
    comonotone one: for u uniform in [0, 1) each variable takes the category, in order of index,
    whose part of its cumulative marginals holds u. An assignment lasts from one end of a category,
    of any variable, to the next. There are Σ (support of a variable − 1) ends, and M is one more,
    in the row that has most.

    Where ends of two variables coincide, either may move next, and an assignment lies between. It
    stays, at hardly any probability: without it, no derivatives of the others would add up to those
    of the marginals. Which end comes first is arbitrary there; the mean point is the same.

    Args:
        scores: (B, V, C), any floating dtype; the work is done in float64.
    Raises:
        TypeError: the scores are no floating-point numbers.
        ValueError: a score is not finite.
    """
    check_finite(scores)
    rows, _, categories = scores.shape
    marginals = sparsemax(scores.double())
    support = marginals.detach() > 0
    index = torch.arange(categories, device=scores.device)
    following = index.where(support, categories).flip(2).cummin(dim=2).values.flip(2)
    ends = support[:, :, :-1] & (following[:, :, 1:] < categories)
    sums = marginals.cumsum(dim=2)[:, :, :-1]
    order, inside = _in_order(sums.detach(), ends)

    breaks = sums.flatten(1).gather(1, order).where(inside, 1)
    one, zero = breaks.new_ones(rows, 1), breaks.new_zeros(rows, 1)
    lengths = torch.cat([zero, breaks, one], dim=1).diff(dim=1).to(scores.dtype)
    used = torch.cat([one > 0, inside], dim=1)
    floor = lengths.detach().clamp(min=least(scores.dtype)).where(used, 0)
    probabilities = floor + (lengths - lengths.detach())

    return SparseAssignments(
        _walk(following, order, inside), probabilities, marginals.to(scores.dtype)
    )


def _in_order(sums: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of categories, marked in (B, V, C − 1), in order of their cumulative marginals.

    Returns:
        where they are, (B, M − 1) of V (C − 1), and whether there is one, (B, M − 1).
    """
    count = ends.flatten(1).sum(dim=1, keepdim=True)
    most = int(count.max()) if len(count) else 0
    inside = torch.arange(most, device=ends.device) < count
    where = ends.flatten(1).nonzero()[:, 1]
    where = where.new_zeros(inside.shape).masked_scatter(inside, where)
    ranked = sums.flatten(1).gather(1, where).where(inside, torch.inf)
    # Stable: those of one variable stay in order, though rounding may make them equal.
    return where.gather(1, ranked.sort(dim=1, stable=True).indices), inside


def _walk(following: Tensor, order: Tensor, inside: Tensor) -> Tensor:
    """The assignments (B, M, V) between ends: at each, one variable goes to its next category.

    Args:
        following: (B, V, C), the first category of the support from each category on.
        order, inside: the ends, as `_in_order` gives them.
    """
    rows, variables, categories = following.shape
    after = following[:, :, 1:] - torch.arange(categories - 1, device=following.device)
    moves = after.flatten(1).gather(1, order).where(inside, 0)
    moved = order // max(categories - 1, 1)
    steps = order.new_zeros(rows, order.shape[1], variables)
    steps.scatter_(2, moved[:, :, None], moves[:, :, None])
    return torch.cat([following[:, None, :, 0], steps], dim=1).cumsum(dim=1)


def _least_sums(losses: Tensor, k: int) -> Tensor:
    """The k least sums of one loss of every place, least first, as ranks (B, P, k) of the losses.

    Args:
        losses: (B, P, R), ascending from 0 at each place. Of place p, only the first
            1 + (k − 1) / (p + 1) are looked at.
    """
    sums, steps = losses[:, 0], []
    for place in range(1, losses.shape[1]):
        looked_at = losses[:, place, : 1 + (k - 1) // (place + 1), None]
        before = sums.shape[1]
        sums = (looked_at + sums[:, None, :]).flatten(1)
        sums, chosen = sums.topk(min(k, sums.shape[1]), dim=1, largest=False, sorted=True)
        steps.append((chosen // before, chosen % before))
    at = torch.arange(k, device=losses.device).expand(len(losses), k)
    ranks = []
    for rank, origin in reversed(steps):
        ranks.append(rank.gather(1, at))
        at = origin.gather(1, at)
    return torch.stack([at, *reversed(ranks)], dim=1)
