"""V independent subsets, each of k items out of n: z has a bit for every item, k of them on.

    q(z) ∝ Π_i exp(θ_i z_i)   over z with Σ_i z_i = k

This is the conditional Bernoulli distribution: independent bits with log-odds θ_i, given that k of
them are on (Chen, Dempster & Liu 1994). With A[i, j] = log P(j of the first i bits are on),

    A[i, j] = log( P(z_i = 0) exp A[i−1, j] + P(z_i = 1) exp A[i−1, j−1] )
    P(z_i = 1 | j of the first i are on) = P(z_i = 1) exp(A[i−1, j−1] − A[i, j])

samples, marginals and the entropy follow from the last item to the first. The k items of highest
score plus Gumbel noise have another law, unless k is 1.
"""

import itertools
import math
from functools import cache, cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from estimators.mappings import above_the_rest, subset_marginals, topk_sparsemax_subsets
from estimators.sampler import Sampler
from estimators.spaces.base import Ranked
from estimators.spaces.structured import MOST_LISTED, Structured


class Subsets(Ranked):
    """{z ∈ {0, 1}^n: Σ z = k}^V.

    Args:
        variables: V.
        items: n.
        chosen: k.
    """

    name = "subsets"

    def __init__(self, variables: int, items: int, chosen: int) -> None:
        super().__init__()
        if variables < 1 or not 1 <= chosen <= items:
            raise ValueError(
                f"Subsets({variables}, {items}, {chosen}): give one variable at least, and choose "
                "from 1 to all of its items"
            )
        self.scores_shape = self.z_shape = self.point_shape = (variables, items)
        self.chosen = chosen
        self.count = math.comb(items, chosen) ** variables
        self.log_assignments = variables * math.log(math.comb(items, chosen))
        self.dimension = variables * (items - 1) if chosen < items else 0
        self.noise_samples_q = chosen in (1, items)

    def __repr__(self) -> str:
        return f"Subsets({self.variables}, {self.items}, {self.chosen})"

    @property
    def variables(self) -> int:
        """V."""
        return self.scores_shape[0]

    @property
    def items(self) -> int:
        """n."""
        return self.scores_shape[1]

    @property
    def size(self) -> int:
        return self.variables * self.items

    def every(self, like: Tensor) -> Float[Tensor, "M V n"]:
        """In lexicographic order of the items, as with k = 1 those of `Categoricals`."""
        if self.count > MOST_LISTED:
            raise ValueError(
                f"the {self.count} assignments of {self} are too many: "
                f"at most {MOST_LISTED} are listed"
            )
        one = _indicators(_combinations(self.items, self.chosen).to(like.device), self.items, like)
        number = torch.arange(len(one), device=like.device)
        return one[torch.cartesian_prod(*[number] * self.variables).view(-1, self.variables)]

    def point(
        self, z: Float[Tensor, "*batch V n"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "*batch V n"]:
        return z

    def _best(self, scores: Float[Tensor, "*batch V n"]) -> Float[Tensor, "*batch V n"]:
        """Of equal items those that come first."""
        order = scores.sort(dim=-1, descending=True, stable=True).indices
        return _indicators(order[..., : self.chosen], self.items, scores)

    def plain(self, scores: Float[Tensor, "B V n"]) -> "ConditionalBernoulli":
        return ConditionalBernoulli(self, scores)

    def soft(self, scores: Float[Tensor, "*batch V n"]) -> Float[Tensor, "*batch V n"]:
        return Chosen(scores, self.chosen).marginals.on

    def noise(
        self, like: Float[Tensor, "B V n"], sampler: Sampler, samples: int
    ) -> Float[Tensor, "B {samples} V n"]:
        """Standard Gumbel, of each item."""
        return sampler.gumbel(like, samples)

    def noise_slope(self, noise: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return -(-noise).expm1()

    def nearest(self, target: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return subset_marginals(target.flatten(0, -2), self.chosen).view_as(target)

    def along(
        self, point: Float[Tensor, "B S V n"], slope: Float[Tensor, "B #S V n"]
    ) -> Float[Tensor, "B S V 1"]:
        return (point * slope).sum(dim=-1, keepdim=True)

    def centred(self, scores: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        if self.chosen == self.items:
            return torch.zeros_like(scores)
        return scores - scores.mean(dim=-1, keepdim=True)

    def topk_sparsemax(
        self, scores: Float[Tensor, "B V n"], k: int
    ) -> tuple[Float[Tensor, "B {k} V n"], Float[Tensor, "B {k}"]]:
        return topk_sparsemax_subsets(scores, self.chosen, k)


@cache
def _combinations(items: int, chosen: int) -> Int[Tensor, "M k"]:
    return torch.tensor(list(itertools.combinations(range(items), chosen)))


def _indicators(
    places: Int[Tensor, "*batch k"], items: int, like: Tensor
) -> Float[Tensor, "*batch n"]:
    """Bits that are on at these places."""
    return like.new_zeros(*places.shape[:-1], items).scatter(-1, places, 1)


class OnOff(NamedTuple):
    """What is to be said of each item where it is chosen, and where it is not."""

    on: Float[Tensor, "*batch n"]
    off: Float[Tensor, "*batch n"]


class Chosen:
    """Independent bits given that k of them are on: the recursions, along the last dimension.

    Scores are taken from a level at which it is likely that k bits are on.
    """

    def __init__(self, scores: Float[Tensor, "*batch n"], chosen: int) -> None:
        self.chosen = chosen
        above = above_the_rest(scores, chosen)
        self.log_p = OnOff(F.logsigmoid(above), F.logsigmoid(-above))
        """Of each bit."""
        self.counts = self._counts()

    def _counts(self) -> Float[Tensor, "*batch n_1 {self.chosen}+1"]:
        """A[i, j], and for j > i a number so low that it takes no part, nor makes infinities."""
        on, off = self.log_p
        impossible = torch.finfo(on.dtype).min / 4
        start = torch.zeros_like(on[..., :1])
        counts = [F.pad(start, (0, self.chosen), value=impossible)]
        for with_it, without in zip(on.split(1, dim=-1), off.split(1, dim=-1), strict=True):
            before = counts[-1]
            one_more = F.pad(before[..., :-1], (1, 0), value=impossible)
            counts.append(torch.logaddexp(before + without, one_more + with_it))
        return torch.stack(counts, dim=-2)

    @property
    def log_total(self) -> Float[Tensor, "*batch"]:
        """log P(k bits are on)."""
        return self.counts[..., -1, -1]

    @cached_property
    def choices(
        self,
    ) -> tuple[Float[Tensor, "*batch n {self.chosen}"], Float[Tensor, "*batch n {self.chosen}+1"]]:
        """P(z_i = 1 | j) for j from 1 to k, and P(z_i = 0 | j) for j from 0 to k."""
        before, after = self.counts[..., :-1, :], self.counts[..., 1:, :]
        on, off = (log_p[..., None] for log_p in self.log_p)
        with_it = (before[..., :-1] + on - after[..., 1:]).exp()
        return with_it, (before + off - after).exp()

    @cached_property
    def marginals(self) -> OnOff:
        """P(z_i = 1) and P(z_i = 0), each with all of its digits."""
        on, off = self.choices
        reached = [F.pad(torch.ones_like(on[..., 0, :1]), (self.chosen, 0))]
        for with_it, without in zip(on.unbind(-2)[:0:-1], off.unbind(-2)[:0:-1], strict=True):
            after = reached[-1]
            reached.append(after * without + F.pad(after[..., 1:] * with_it, (0, 1)))
        reach = torch.stack(reached[::-1], dim=-2)
        return OnOff((reach[..., 1:] * on).sum(dim=-1), (reach * off).sum(dim=-1))

    def log_prob(self, bits: OnOff) -> Float[Tensor, "*batch"]:
        """Of bits with k on; between them it is linear."""
        return (bits.on * self.log_p.on + bits.off * self.log_p.off).sum(dim=-1) - self.log_total


class ConditionalBernoulli(Structured):
    """Independent subsets; the scores are the log-odds of the bits that are conditioned."""

    space: Subsets

    @cached_property
    def _chosen(self) -> Chosen:
        return Chosen(self.scores, self.space.chosen)

    def sample(self, sampler: Sampler, samples: int) -> Float[Tensor, "B {samples} V n"]:
        """Item by item, from the last: what is left to choose from the first is no choice."""
        rows, variables, items = self.scores.shape
        shape = rows, samples, variables, 1
        left = torch.full(shape, self.space.chosen, device=self.scores.device)
        drawn = self.scores.new_empty(rows, samples, variables, items)
        on = F.pad(self._chosen.choices[0].detach().clamp(max=1), (1, 0))
        for item in range(items - 1, 0, -1):
            p = on[:, None, :, item].expand(-1, samples, -1, -1).gather(3, left.clamp(min=0))
            bits = sampler.bernoulli(p.flatten(1), 1).view_as(left)
            drawn[..., item] = bits.squeeze(3)
            left = left - bits.to(left.dtype)
        drawn[..., 0] = left.squeeze(3)
        return drawn

    def log_prob(self, z: Float[Tensor, "B S V n"]) -> Float[Tensor, "B S"]:
        chosen = self._chosen
        on, off = (log_p[:, None] for log_p in chosen.log_p)
        of_each = (z * on + (1 - z) * off).sum(dim=3) - chosen.log_total[:, None]
        return of_each.sum(dim=2)

    def entropy(self) -> Float[Tensor, " B"]:
        """−log q, which is linear in the point, at the marginals."""
        return -self._chosen.log_prob(self._chosen.marginals).sum(dim=1)

    def marginals(self) -> Float[Tensor, "B V n"]:
        return self._chosen.marginals.on
