"""Sum-and-sample: the likeliest categories are summed exactly, the rest is sampled.

With C the k likeliest categories and g(z) = (f(z) − b) ∇ log q(z),

    E_q[g] = Σ_{z ∈ C} q(z) g(z) + (1 − q(C)) E_{q(z | z ∉ C)}[g(z)]

(Liu et al. 2019, equation 6). b is a moving average of the costs of earlier batches, the same
for every term, so that it drops out of the expectation.
"""

from typing import Annotated, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from estimators.base import Bias, Estimate, Estimator, Family, Knob, Latent, Proposal
from estimators.distributions.base import Categorical, Distribution
from estimators.registry import register
from estimators.sampled.baselines import MovingAverage
from estimators.sampler import Sampler
from estimators.searched import DECAY, SAMPLES, Range


@register
class SumAndSample(Estimator):
    """Rao-Blackwellised score function for categorical latents."""

    name = "sum-and-sample"
    citation = "Liu et al. 2019"
    families: ClassVar[frozenset[Family]] = frozenset({"categorical"})
    bias: ClassVar[Bias] = "unbiased"
    knobs = (Knob("k", (1, 2, 4)), Knob("decay", (0.5, 0.9, 0.99)))

    class Settings(BaseModel, extra="forbid", frozen=True):
        k: Annotated[int, Range(1, 8, log=True, costs=True)] = Field(
            1, ge=1, description="categories summed exactly, the likeliest"
        )
        samples: Annotated[int, SAMPLES] = Field(
            1, ge=1, description="samples from the rest, for each row"
        )
        decay: Annotated[float, DECAY] = Field(
            0.9, ge=0, lt=1, description="share of the old average kept a step"
        )

    settings: Settings

    def __init__(self, latent: Latent, settings: Settings) -> None:
        super().__init__(latent, settings)
        self.average = MovingAverage(settings.decay)

    @classmethod
    def refusal(cls, latent: Latent, settings: BaseModel) -> str | None:
        assert isinstance(settings, cls.Settings)
        if latent.family == "categorical" and settings.k >= latent.size:
            return f"{cls.name} sums k = {settings.k} of {latent.size} categories: none is left"
        return super().refusal(latent, settings)

    @property
    def calls_per_row(self) -> int:
        return self.settings.k + self.settings.samples

    def propose(self, q: Distribution, features: Tensor, sampler: Sampler) -> Proposal:
        assert isinstance(q, Categorical)
        k, samples = self.settings.k, self.settings.samples
        p = q.probabilities.detach()
        top, summed = p.topk(k, dim=1)
        rest = p.scatter(1, summed, 0)
        # A row whose rest has underflowed samples any other category, at weight zero.
        anything = torch.ones_like(p).scatter(1, summed, 0)
        mass = rest.sum(dim=1, keepdim=True)
        sampled = sampler.categorical(torch.where(mass > 0, rest, anything), samples)
        weight = torch.cat([top, (mass / samples).expand(-1, samples)], dim=1)
        return Proposal.rectangular(torch.cat([summed, sampled], dim=1), weight)

    def combine(self, q: Distribution, proposal: Proposal, costs: Tensor) -> Estimate:
        assert proposal.decoder_weight is not None
        f = costs.view(len(q.scores), -1)
        weight = proposal.decoder_weight.view_as(f)
        signal = weight * (f - self.average.value)
        surrogate = (signal * q.log_prob(proposal.extras["z"])).sum(dim=1)
        return Estimate((weight * f).sum(dim=1), surrogate)

    def update(self, proposal: Proposal, costs: Tensor) -> None:
        assert proposal.decoder_weight is not None
        self.average.update((proposal.decoder_weight * costs).sum() / proposal.decoder_weight.sum())
