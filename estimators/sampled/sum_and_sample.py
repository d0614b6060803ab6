"""Sum-and-sample: some assignments are summed exactly, the rest is sampled.

With C the k likeliest assignments, or k that were drawn without replacement, and
g(z) = (f(z) − b) ∇ log q(z),

    E_q[g] = Σ_{z ∈ C} q(z) g(z) + (1 − q(C)) E_{q(z | z ∉ C)}[g(z)]

whatever C is (Liu et al. 2019, equation 6; drawn: Kool et al. 2020, equation 7). b is a moving
average of the costs of earlier batches, the same for every term, so that it drops out of the
expectation.
"""

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import Tensor

from estimators.base import Bias, Estimate, Evaluated, Knob, Proposal
from estimators.registry import register
from estimators.sampled.baselines import MovingAverage
from estimators.sampled.sampling import Sampling, SamplingSettings
from estimators.sampled.unordered_set import MOST_LISTED, without_replacement
from estimators.sampler import Sampler
from estimators.searched import DECAY, SAMPLES, Choices, Range
from estimators.spaces.base import Space
from estimators.spaces.distribution import Distribution, PlainDistribution


@register
class SumAndSample(Sampling):
    """Rao-Blackwellised score function, where every assignment can be listed."""

    name = "sum-and-sample"
    citation = "Liu et al. 2019"
    bias: ClassVar[Bias] = "unbiased"
    knobs = (Knob("k", (1, 2, 4)), Knob("decay", (0.5, 0.9, 0.99)))

    class Settings(SamplingSettings, frozen=True):
        k: Annotated[int, Range(1, 8, log=True, costs=True)] = Field(
            1, ge=1, description="assignments summed exactly"
        )
        summed: Annotated[Literal["likeliest", "drawn"], Choices()] = Field(
            "likeliest", description="which these are: drawn ones are without replacement"
        )
        samples: Annotated[int, SAMPLES] = Field(
            1, ge=1, description="samples from the rest, for each row"
        )
        decay: Annotated[float, DECAY] = Field(
            0.9, ge=0, lt=1, description="share of the old average kept a step"
        )

    settings: Settings

    def __init__(self, space: Space, settings: Settings, features: int = 0) -> None:
        super().__init__(space, settings, features)
        self.average = MovingAverage(settings.decay)

    @classmethod
    def refusal(cls, space: Space, settings: BaseModel) -> str | None:
        assert isinstance(settings, cls.Settings)
        if settings.k >= space.count:
            return f"{cls.name} sums k = {settings.k} of {space.count} assignments: none is left"
        if space.count > MOST_LISTED and not space.single:
            return f"{cls.name} lists every assignment: at most {MOST_LISTED}, not {space}'s"
        return super().refusal(space, settings)

    @property
    def calls_per_row(self) -> int:
        return self.settings.k + self.settings.samples

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        k, samples = self.settings.k, self.settings.samples
        assert isinstance(q, PlainDistribution)
        every, p = self.space.every(q.scores), q.joint().detach()
        if self.settings.summed == "likeliest":
            summed = p.topk(k, dim=1).indices
        else:
            summed = without_replacement(p, k, sampler)
        rest = p.scatter(1, summed, 0)
        # A row whose rest has underflowed samples any other assignment, at weight zero.
        anything = torch.ones_like(p).scatter(1, summed, 0)
        mass = rest.sum(dim=1, keepdim=True)
        sampled = sampler.categorical(torch.where(mass > 0, rest, anything), samples)
        weight = torch.cat([p.gather(1, summed), (mass / samples).expand(-1, samples)], dim=1)
        return Proposal.rectangular(every[torch.cat([summed, sampled], dim=1)], weight)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert proposal.decoder_weight is not None
        f = evaluated.costs.view(len(q.scores), -1)
        weight = proposal.decoder_weight.view_as(f)
        signal = weight * (f - self.average.value)
        surrogate = (signal * q.log_prob(proposal.extras["z"])).sum(dim=1)
        return Estimate((weight * f).sum(dim=1), surrogate)

    def update(self, proposal: Proposal, evaluated: Evaluated, estimate: Estimate) -> None:
        weight = proposal.decoder_weight
        assert weight is not None
        self.average.update((weight * evaluated.costs).sum() / weight.sum())
