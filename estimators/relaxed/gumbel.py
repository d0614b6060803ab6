"""Relaxations with Gumbel noise: Gumbel-Softmax and its straight-through variant.

    z = softmax((scores + G) / τ)  for a category,   z = sigmoid((scores + L) / τ)  for a bit

with G standard Gumbel and L standard logistic noise (Jang et al. 2017; Maddison et al. 2017). The
gradient flows through z, so that the decoder must take points between the vertices. It is exact
for the relaxed cost, and biased for the discrete one.
"""

import math
from typing import Annotated, ClassVar, Self

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from estimators.base import Bias, Estimate, Estimator, Knob, Latent, Proposal
from estimators.distributions.base import Distribution
from estimators.registry import register
from estimators.sampler import Sampler
from estimators.searched import SAMPLES, Range


@register
class GumbelSoftmax(Estimator):
    """A relaxed sample at temperature τ = max(minimum, initial · exp(−rate · t)), t the step."""

    name = "gumbel"
    citation = "Jang et al. 2017; Maddison et al. 2017"
    bias: ClassVar[Bias] = "biased"
    relaxed = True
    knobs = (Knob("initial", (0.5, 1.0, 2.0)),)

    class Settings(BaseModel, extra="forbid", frozen=True):
        samples: Annotated[int, SAMPLES] = Field(1, ge=1, description="samples of z for each row")
        initial: Annotated[float, Range(0.5, 3, log=True)] = Field(
            1.0, gt=0, description="temperature at the first step"
        )
        minimum: Annotated[float, Range(0.1, 0.5, log=True)] = Field(
            0.5, gt=0, description="lowest temperature"
        )
        rate: Annotated[float, Range(1e-5, 1e-3, log=True)] = Field(
            1e-4, ge=0, description="decay of the temperature a step"
        )
        every: int = Field(1000, ge=1, description="steps between changes of the temperature")

        @model_validator(mode="after")
        def _falls(self) -> Self:
            if self.initial < self.minimum:
                raise ValueError(
                    f"initial = {self.initial:g} is below minimum = {self.minimum:g}, and the "
                    "temperature never rises: lower the minimum as well"
                )
            return self

    settings: Settings
    step: Tensor

    def __init__(self, latent: Latent, settings: Settings) -> None:
        super().__init__(latent, settings)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples

    @property
    def temperature(self) -> float:
        s = self.settings
        t = int(self.step) // s.every * s.every
        return max(s.minimum, s.initial * math.exp(-s.rate * t))

    def relax(self, q: Distribution, sampler: Sampler) -> Tensor:
        """Relaxed samples (B, S, K) or (B, S, D), with the scores' gradient."""
        scores, samples = q.scores, self.settings.samples
        if self.latent.family == "categorical":
            noisy = scores[:, None, :] + sampler.gumbel(scores, samples)
            return (noisy / self.temperature).softmax(dim=2)
        noisy = scores[:, None, :] + sampler.logistic(scores, samples)
        return (noisy / self.temperature).sigmoid()

    def propose(self, q: Distribution, features: Tensor, sampler: Sampler) -> Proposal:
        z = self.relax(q, sampler)
        row = torch.arange(len(z), device=z.device).repeat_interleave(z.shape[1])
        weight = q.scores.new_full((len(row),), 1 / self.settings.samples)
        return Proposal(z.flatten(0, 1), row, decoder_weight=weight, pathwise_weight=weight)

    def combine(self, q: Distribution, proposal: Proposal, costs: Tensor) -> Estimate:
        f = costs.view(len(q.scores), -1)
        temperature = costs.new_tensor(self.temperature)
        return Estimate(f.mean(dim=1), None, diagnostics={"temperature": temperature})

    def update(self, proposal: Proposal, costs: Tensor) -> None:
        self.step += 1


@register
class StraightThroughGumbel(GumbelSoftmax):
    """The decoder sees the vertex nearest to the relaxed sample; the gradient is the latter's."""

    name = "st-gumbel"
    citation = "Jang et al. 2017"

    def relax(self, q: Distribution, sampler: Sampler) -> Tensor:
        soft = super().relax(q, sampler)
        if self.latent.family == "categorical":
            hard = F.one_hot(soft.argmax(dim=2), self.latent.size).to(soft.dtype)
        else:
            hard = (soft > 0.5).to(soft.dtype)
        return hard + (soft - soft.detach())
