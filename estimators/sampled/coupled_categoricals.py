"""Categorical variables from coupled samples, each of which is by itself a sample of q.

A category is a leaf of a binary tree. Whoever comes to a node goes to one of its sides by a bit,
with log-odds ψ that follow from the scores. Samples have their bits at a node coupled as
`coupled_bits` couples them; bits of different nodes and variables are independent. The leaves are
the categories in the order of their probabilities.
"""

import math
from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, Field
from torch import Tensor
from torch.nn import functional as F

from estimators.base import Bias, Estimate, Evaluated, Proposal
from estimators.registry import register
from estimators.sampled.coupled import ARMS, Pairs, coupled_bits, opposite, ratio
from estimators.sampled.sampling import Sampling
from estimators.sampler import Sampler
from estimators.searched import Choices
from estimators.spaces.base import Space
from estimators.spaces.categoricals import Categoricals
from estimators.spaces.distribution import Distribution


def sticks(categories: int) -> Float[Tensor, "K C"]:
    """The side of each node that each leaf is on, 1 or −1, or 0 where it is not under the node: of
    sticks, which break off one leaf from all that come after it."""
    return (2 * torch.eye(categories) - torch.ones(categories, categories).triu())[:-1]


def halves(categories: int) -> Float[Tensor, "K C"]:
    """The same of the balanced tree, whose nodes part the leaves under them in the middle."""
    sides, ranges = torch.zeros(categories - 1, categories), [(0, categories)]
    for node in range(categories - 1):
        first, last = ranges[node]
        middle = (first + last) // 2
        sides[node, first:middle], sides[node, middle:last] = 1, -1
        ranges += [half for half in ((first, middle), (middle, last)) if half[1] - half[0] > 1]
    return sides


class OfCategories(Sampling):
    """Takes categorical variables, of two categories at least."""

    spaces: ClassVar[tuple[type[Space], ...]] = (Categoricals,)
    bias: ClassVar[Bias] = "unbiased"

    @classmethod
    def refusal(cls, space: Space, settings: BaseModel) -> str | None:
        if isinstance(space, Categoricals) and space.categories < 2:
            return f"{cls.name} takes two categories at least: {space} has one"
        return super().refusal(space, settings)


class Coupled(OfCategories):
    """Independent groups of n coupled samples."""

    descending: ClassVar[bool]
    """The order of the leaves' probabilities."""

    def __init__(self, space: Space, settings: BaseModel, features: int = 0) -> None:
        super().__init__(space, settings, features)
        assert isinstance(space, Categoricals)
        self.sides = self.tree(space.categories)

    def tree(self, categories: int) -> Float[Tensor, "K C"]:
        return sticks(categories)

    @property
    @abstractmethod
    def groups(self) -> tuple[int, int]:
        """How many, and n."""

    @property
    def calls_per_row(self) -> int:
        return math.prod(self.groups)

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        scores = q.scores.detach()
        sides, order = self.sides.to(scores), scores.argsort(dim=2, descending=self.descending)
        p = scores.double().gather(2, order).softmax(dim=2)
        p = p.clamp(min=torch.finfo(p.dtype).tiny)  # lest both sides of a node have nothing
        one, other = (p @ (sides == side).to(p).mT for side in (1, -1))
        bits = coupled_bits((one.log() - other.log()).flatten(1), *self.groups, sampler)
        turns = 2 * bits.to(sides).flatten(1, 2).unflatten(2, one.shape[1:]) - 1
        wrong = sides.abs().sum(dim=0) - turns @ sides  # twice their number, on the way to a leaf
        leaf = wrong.argmin(dim=3).mT
        z = order.gather(2, leaf).mT
        weight = scores.new_full(z.shape[:2], 1 / z.shape[1])
        return Proposal.rectangular(z, weight, leaf=leaf, order=order, p=p, one=one, other=other)


class Weighted(Coupled):
    """Over sticks, the mean over the pairs of samples in a group of

        ½ w_v (f(z) − f(z')) (e(z_v) − e(z'_v)),   w_v = q(z_v) q(z'_v) / P(z_v, z'_v)

    for variable v: every two categories count as in independent samples, which have w = 1. It
    depends on the one that breaks off first: at node i, with π the chance to break off,

        w = ρ_i Π_{c<i} (1 − π_c)² / P(both go on at c),   ρ_i = π_i (1 − π_i) / P(one goes on at i)

    The rarest categories come first. So at every node in a product, which has two others after it,
    π is at most ⅓ and P(both go on) at least 1 − 2 π ≥ ⅓. It never vanishes, and w is below 2. Of
    antithetic pairs w is at most 1 less the smallest probability, so that of a single variable each
    has no larger variance than two independent samples.
    """

    descending = False

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        groups, size = self.groups
        extras = proposal.extras
        weight = pair_weights(extras["one"], extras["other"], size).to(q.scores.dtype)
        leaf, f = extras["leaf"].unflatten(2, self.groups), evaluated.costs.view(-1, *self.groups)
        first = torch.minimum(leaf[..., None], leaf[..., None, :])
        w = weight.gather(2, first.flatten(2)).view(first.shape)
        above = f[..., None] - f[..., None, :]
        signal = torch.einsum("bvgij,bgij->bvgi", w, above) / (groups * size * (size - 1))
        chosen = q.scores.gather(2, extras["z"].mT)
        return Estimate(f.mean(dim=(1, 2)), (signal.flatten(2) * chosen).sum(dim=(1, 2)))


def pair_weights(
    one: Float[Tensor, "B V K"], other: Float[Tensor, "B V K"], size: int
) -> Float[Tensor, "B V C"]:
    """w by the leaf that breaks off first. Where that is the last one, both are the same, and it
    does not matter."""
    rho = ratio(one.log() - other.log(), size)
    go = other / (one + other)
    both = go - (1 - go) * go / rho  # P(both go on)
    before = (go.square() / both)[..., :-1].cumprod(dim=2)
    return F.pad(rho * F.pad(before, (1, 0), value=1.0), (0, 1))


@register
class ImportanceWeighted(Weighted):
    """DisARM of categories with importance weights: independent antithetic pairs."""

    name = "disarm-iw"
    citation = "Dong et al. 2021"
    Settings = Pairs.Settings

    settings: Pairs.Settings

    @property
    def groups(self) -> tuple[int, int]:
        return self.settings.pairs, 2


@register
class CARMS(Weighted):
    """n samples, all coupled with each other.

    With n = 2 this is `disarm-iw`; independent samples would have w = 1, and this would be RLOO.
    Each stick has a copula of its own, a flat Dirichlet variable. The other published way is one of
    all samples for each variable, whose intervals of probability come in random order: there P is a
    mean over C (C − 1) / 2 orders, and the law is not finite.
    """

    name = "carms"
    citation = "Dimitriev & Zhou 2021"
    Settings = ARMS.Settings

    settings: ARMS.Settings

    @property
    def groups(self) -> tuple[int, int]:
        return 1, self.settings.samples


@register
class TreeDisARM(Coupled, Pairs):
    """½ (f(z) − f(z')) d_k for the log-odds ψ_k of each node k, chained to the scores.

    Where both samples come to a node, d_k = (b_k − b'_k) max(π_k, 1 − π_k), which is DisARM. Where
    z comes alone, it is b_k − π_k, and where z' does, π_k − b'_k: each is the other's baseline, as
    none of the bits it came by is coupled with that one. The likeliest categories come first, which
    mostly has less variance than the other way. Halves of categories that are about as likely can
    have more than two independent samples.
    """

    name = "disarm-tree"
    citation = "Dong et al. 2021"
    descending = True

    class Settings(Pairs.Settings, frozen=True):
        form: Annotated[Literal["stick", "tree"], Choices()] = Field(
            "stick", description="what a node parts: one category from those left, or halves"
        )

    settings: Settings

    def tree(self, categories: int) -> Float[Tensor, "K C"]:
        return sticks(categories) if self.settings.form == "stick" else halves(categories)

    @property
    def groups(self) -> tuple[int, int]:
        return self.settings.pairs, 2

    def direction(
        self, q: Distribution, proposal: Proposal, z: Int[Tensor, "B P 2 V"]
    ) -> Float[Tensor, "B P V C"]:
        p, one, other, order, leaf = (
            proposal.extras[name] for name in ("p", "one", "other", "order", "leaf")
        )
        sides = self.sides.to(p)
        side = sides.mT[leaf.mT.unflatten(1, (-1, 2))]
        come, bit = side.abs(), side.clamp(min=0)
        both = come.prod(dim=2)
        alone = come * (bit - (one / (one + other))[:, None, None])
        own = (alone[:, :, 0] - alone[:, :, 1]) / 2
        d = torch.where(both > 0, opposite(one.log() - other.log(), bit), own)
        # Of a leaf, ∂ψ / ∂score is its share of its side, with the side's sign.
        slope = (d / one[:, None]) @ (sides > 0).to(p) - (d / other[:, None]) @ (sides < 0).to(p)
        of_leaves = (p[:, None] * slope).to(q.scores.dtype)
        return torch.empty_like(of_leaves).scatter(
            3, order[:, None].expand_as(of_leaves), of_leaves
        )
