"""ARSM: categorical variables from one noise, in which two categories change places.

With independent exponential variables, divided by their sum to give π, uniform on the simplex,

    z = argmax_c (score_c − log π_c) ~ q,     ∂ E_q[f] / ∂ score_c = E[f(z) (1 − C π_c)]

(Yin et al. 2019). π with two entries swapped has the same law. With F_mj the cost where entries m
and j of every variable are swapped, a variable has the gradient

    g_m = Σ_j (1/C − π_j) (F_mj − mean_{m'} F_m'j)

What is taken off has the mean zero: for any j, the gradients in all C scores sum to zero.
"""

from itertools import combinations

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel
from torch import Tensor

from estimators.base import Estimate, Evaluated, Proposal, surrogate_of
from estimators.registry import register
from estimators.sampled.coupled_categoricals import OfCategories
from estimators.sampled.sampling import SamplingSettings
from estimators.sampler import Sampler
from estimators.spaces.base import Space
from estimators.spaces.categoricals import Categoricals
from estimators.spaces.distribution import Distribution


@register
class ARSM(OfCategories):
    """Every swap of two categories, and none; of two categories in all, this is ARM.

    Many swaps lead to the same z, and a row has a call for each distinct one: C at most of a single
    variable. As every swap has a sample of q, the decoder weighs z by how many lead there.
    """

    name = "arsm"
    citation = "Yin et al. 2019"
    Settings = SamplingSettings

    def __init__(self, space: Space, settings: BaseModel, features: int = 0) -> None:
        super().__init__(space, settings, features)
        assert isinstance(space, Categoricals)
        self.categories = space.categories
        self.swaps = torch.tensor([(0, 0), *combinations(range(self.categories), 2)]).T
        m, j = self.swaps
        self.number = torch.zeros(self.categories, self.categories, dtype=torch.int64)
        self.number[m, j] = self.number[j, m] = torch.arange(len(m))
        """Pairs (2, M) of m and j, the first of which is no swap, and the place of each there."""

    @property
    def calls_per_row(self) -> int:
        return min(self.swaps.shape[1], self.space.count)

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        scores = q.scores.detach()
        noise = sampler.gumbel(scores, 1).squeeze(1)  # −log π, but for a constant
        z = after_swaps(scores, noise, *self.swaps.to(noise.device)).mT
        place, first, times = distinct(z, self.categories)
        weight = times.to(scores.dtype) / z.shape[1]
        extras = {"noise": noise, "place": place}
        return Proposal(z.flatten(0, 1)[first], first // z.shape[1], weight, extras=extras)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        f = evaluated.costs[proposal.extras["place"]]
        swapped = f[:, self.number.to(f.device)]
        centred = swapped - swapped.mean(dim=1, keepdim=True)
        away = 1 / self.categories - (-proposal.extras["noise"]).softmax(dim=2)
        gradient = torch.einsum("bvj,bmj->bvm", away, centred)
        return Estimate(f.mean(dim=1), surrogate_of(gradient, q.scores))


def after_swaps(
    scores: Float[Tensor, "B V C"],
    noise: Float[Tensor, "B V C"],
    m: Int[Tensor, " M"],
    j: Int[Tensor, " M"],
) -> Int[Tensor, "B V M"]:
    """The best category where the noise of m and j has changed places.

    It is m, j or the best of all others, which is among the best three of all: M arrays of C scores
    are gigabytes for hundreds of categories.
    """
    top = (scores + noise).topk(min(3, scores.shape[2]), dim=2)
    best = scores.new_full((*scores.shape[:2], len(m)), -torch.inf)
    z = m.expand(best.shape)
    others = [
        (torch.where((at == m) | (at == j), -torch.inf, value), at)
        for value, at in zip(top.values.split(1, dim=2), top.indices.split(1, dim=2), strict=True)
    ]
    crossed = [(scores[..., m] + noise[..., j], m), (scores[..., j] + noise[..., m], j)]
    for value, at in others + crossed:
        better = value > best
        best, z = torch.where(better, value, best), torch.where(better, at, z)
    return z


def distinct(
    z: Int[Tensor, "B M V"], categories: int
) -> tuple[Int[Tensor, "B M"], Int[Tensor, " N"], Int[Tensor, " N"]]:
    """Which of the N distinct assignments of its row each is, and of each of these a place in the
    flat list where it stands, and how often it does."""
    number = torch.arange(len(z), device=z.device)[:, None].expand(z.shape[:2]).flatten()
    for values in z.flatten(0, 1).unbind(1):  # after each, numbers are small: they can't overflow
        _, number, times = (number * categories + values).unique(
            return_inverse=True, return_counts=True
        )
    places = torch.arange(len(number), device=z.device)
    first = torch.empty_like(times).scatter(0, number, places)
    return number.view(z.shape[:2]), first, times
