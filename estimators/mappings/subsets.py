"""Subsets of k items out of n, V times: the best of them, and sparsemax over these.

A subset is n bits of which k are on; its score is the sum of those of its items.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from estimators.mappings.categoricals import topk_sparsemax_categoricals
from estimators.mappings.finite import check_finite, mapping


class TopKSubsets(NamedTuple):
    """Sparsemax restricted to the best assignments of every row."""

    vertices: Float[Tensor, "B M V n"]
    """Zeros and ones, best first, distinct within a row."""
    probabilities: Float[Tensor, "B M"]
    """Differentiable in the scores; zero outside the support."""


def above_the_rest(scores: Float[Tensor, "*batch n"], chosen: int) -> Float[Tensor, "*batch n"]:
    """Scores from a level between those of the best subset's items and the others, without the
    level's gradient: to subsets it makes no difference, and what scores have in common costs no
    digits."""
    best = scores.detach().topk(min(chosen + 1, scores.shape[-1]), dim=-1).values
    return scores - best[..., -2:].mean(dim=-1, keepdim=True)


@mapping
def top_subsets(scores: Float[Tensor, "B n"], chosen: int, count: int) -> Float[Tensor, "B M n"]:
    """The subsets of highest score for every row, best first.

    A dynamic programme over items keeps the `count` least losses for each number of items that are
    taken so far. An item of the best subset loses what it has above the level if it is left, and
    any other what it has below if it is taken: as many are left as are taken, so that the level
    drops out.

    Args:
        scores: of any floating dtype.
        chosen: k, 1 to n.
        count: 1 to as many subsets as there are.
    Returns:
        Zeros and ones in the dtype of `scores`, without gradient.
    Raises:
        TypeError: the scores are no floating-point numbers.
        ValueError: a number is out of range, or a score is not finite.
    """
    rows, items = scores.shape
    there = math.comb(items, chosen) if chosen > 0 else 0
    if not 1 <= count <= there:
        raise ValueError(f"{count} subsets were asked for, of {there}")
    check_finite(scores)
    above = above_the_rest(scores.detach(), chosen)
    sums = F.pad(above.new_zeros(rows, 1, 1), (0, 0, 0, chosen), value=torch.inf)
    steps = []
    for on, off in zip((-above).clamp(min=0).T, above.clamp(min=0).T, strict=True):
        before = sums.shape[2]
        one_more = F.pad(sums[:, :-1], (0, 0, 1, 0), value=torch.inf)
        both = torch.cat([sums + off[:, None, None], one_more + on[:, None, None]], dim=2)
        sums, origin = both.topk(min(count, 2 * before), dim=2, largest=False, sorted=True)
        steps.append((origin // before, origin % before))
    row = torch.arange(rows, device=scores.device)[:, None]
    rank = torch.arange(count, device=scores.device).expand(rows, count)
    left, found = torch.full_like(rank, chosen), []
    for taken, origin in reversed(steps):
        found.append(taken[row, left, rank])
        left, rank = left - found[-1], origin[row, left, rank]
    return torch.stack(found[::-1], dim=2).to(scores.dtype)


@mapping
def topk_sparsemax_subsets(scores: Float[Tensor, "B V n"], chosen: int, count: int) -> TopKSubsets:
    """Top-k sparsemax (Correia et al. 2020, section 4.1): sparsemax over the best assignments.

    The best of V subsets are made of the best of each, which are its categories.

    Args:
        scores: of any floating dtype.
        chosen: k, 1 to n.
        count: of the assignments; with all there are this is the full sparsemax.
    Raises:
        TypeError: the scores are no floating-point numbers.
        ValueError: a number is out of range, or a score is not finite.
    """
    rows, variables, items = scores.shape
    each = min(count, math.comb(items, chosen))
    subsets = top_subsets(scores.flatten(0, 1), chosen, each).view(rows, variables, each, items)
    totals = torch.einsum("bvmn,bvn->bvm", subsets, above_the_rest(scores, chosen))
    categories, probabilities = topk_sparsemax_categoricals(totals, count)
    places = categories.mT[..., None].expand(-1, -1, -1, items)
    return TopKSubsets(subsets.gather(2, places).transpose(1, 2), probabilities)
