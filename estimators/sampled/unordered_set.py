"""The unordered-set estimator: k distinct samples, whatever the order they came in.

With S the set of k assignments that were drawn without replacement, and P(S | U) the probability
that the draws after those of U ⊂ S complete S,

    P(S | U) = Σ_{z ∈ S∖U} q(z) / (1 − q(U)) · P(S | U ∪ {z}),   P(S | S) = 1

which gives the chance that z was the first, q(z) P(S | {z}) / P(S | ∅), and likewise after it:

    g = Σ_{z ∈ S} w(z) [f(z) − b(z)] ∇ log q(z),     w(z) = q(z) P(S | {z}) / P(S | ∅)
    b(z) = q(z) f(z) + Σ_{z' ≠ z} q(z') P(S | {z, z'}) / P(S | {z}) f(z')

(Kool et al. 2020, equations 8 and 17). It is the average of the first sample's estimate over all
orders. With every assignment in S it is the exact sum.
"""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, Field
from torch import Tensor

from estimators.base import Bias, Estimate, Evaluated, Proposal
from estimators.registry import register
from estimators.sampled.sampling import Sampling, SamplingSettings
from estimators.sampler import Sampler
from estimators.searched import Range
from estimators.spaces.base import Space
from estimators.spaces.distribution import Distribution, PlainDistribution

MOST_LISTED = 2**12
"""Most assignments, of a latent variable that is no single category, whose probabilities are held
for each row."""

LEAST = 1e-290
"""Probabilities below it, in float64, are taken for this, so that their ratios are numbers."""


def without_replacement(
    probabilities: Float[Tensor, "B M"], count: int, sampler: Sampler
) -> Int[Tensor, "B {count}"]:
    """Places of distinct draws, one after the other; of any that are left where no other has a
    probability."""
    chosen = torch.zeros_like(probabilities, dtype=torch.bool)
    found = []
    for _ in range(count):
        left = probabilities.double().clamp(min=LEAST).masked_fill(chosen, 0)
        found.append(sampler.categorical(left / left.sum(dim=1, keepdim=True), 1))
        chosen = chosen.scatter(1, found[-1], True)
    return torch.cat(found, dim=1)


@register
class UnorderedSet(Sampling):
    """k samples without replacement, where every assignment can be listed."""

    name = "unordered-set"
    citation = "Kool et al. 2020"
    bias: ClassVar[Bias] = "unbiased"

    class Settings(SamplingSettings, frozen=True):
        samples: Annotated[int, Range(2, 8, log=True, costs=True)] = Field(
            4, ge=2, le=10, description="k, distinct assignments for each row"
        )

    settings: Settings

    @classmethod
    def refusal(cls, space: Space, settings: BaseModel) -> str | None:
        assert isinstance(settings, cls.Settings)
        if settings.samples > space.count:
            return f"{cls.name} draws {settings.samples} of {space.count} assignments"
        if space.count > MOST_LISTED and not space.single:
            return f"{cls.name} lists every assignment: at most {MOST_LISTED}, not {space}'s"
        return super().refusal(space, settings)

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        assert isinstance(q, PlainDistribution)
        every, p = self.space.every(q.scores), q.joint().detach()
        drawn = without_replacement(p, self.settings.samples, sampler)
        mass, rest = p.double().clamp(min=LEAST), p.double().scatter(1, drawn, 0)
        chances = _chances(mass.gather(1, drawn), rest.sum(dim=1, keepdim=True))
        first, after = (part.to(p.dtype) for part in chances)
        return Proposal.rectangular(every[drawn], first, after=after)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert proposal.decoder_weight is not None
        after = proposal.extras["after"]
        f = evaluated.costs.view(after.shape[:2])
        weight = proposal.decoder_weight.view_as(f)
        b = torch.einsum("bst,bt->bs", after, f)
        signal = weight * (f - b)
        surrogate = (signal * q.log_prob(proposal.extras["z"])).sum(dim=1)
        return Estimate((weight * f).sum(dim=1), surrogate)


def _chances(
    p: Float[Tensor, "B k"], rest: Float[Tensor, "B 1"]
) -> tuple[Float[Tensor, "B k"], Float[Tensor, "B k k"]]:
    """w, and what each b makes of every cost, where `rest` is the probability of all others."""
    size = p.shape[1]
    places = torch.arange(size, device=p.device)
    subsets = torch.arange(2**size, device=p.device)
    within = (subsets[:, None] >> places & 1).bool()
    left = rest + p @ (~within).to(p.dtype).T  # 1 − q(U), of positive terms
    complete = torch.ones_like(left)
    for count in range(size - 1, -1, -1):
        chosen = (within.sum(dim=1) == count).nonzero().squeeze(1)
        following = chosen[:, None] | 1 << places
        terms = (p[:, None] * complete[:, following]).masked_fill(within[chosen], 0)
        complete[:, chosen] = terms.sum(dim=2) / left[:, chosen]
    single = complete[:, 1 << places]
    pair = complete[:, (1 << places)[:, None] | 1 << places]
    after = p[:, None] * pair / single[:, :, None]
    own = torch.eye(size, dtype=torch.bool, device=p.device)
    return p * single / complete[:, :1], torch.where(own, p[:, None], after)
