"""Relaxations with Gumbel noise: Gumbel-Softmax and its straight-through variant.

    z = soft((scores + G) / τ):   a softmax for a category,   a sigmoid for a bit

with G standard Gumbel noise, for a bit logistic (Jang et al. 2017; Maddison et al. 2017). The
gradient flows through z, so that the decoder must take points between the vertices:

    ⟨∂f/∂z, ∂z/∂scores⟩

It is exact for the relaxed cost, and biased for the discrete one.
"""

import math
from typing import Annotated, ClassVar, Self

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from estimators.base import Bias, Estimate, Estimator, Evaluated, Knob, Proposal
from estimators.registry import register
from estimators.sampler import Sampler
from estimators.searched import SAMPLES, Range
from estimators.spaces.base import Factorised, Space
from estimators.spaces.distribution import Distribution


@register
class GumbelSoftmax(Estimator):
    """A relaxed sample at temperature τ = max(minimum, initial · exp(−rate · t)), t the step."""

    name = "gumbel"
    citation = "Jang et al. 2017; Maddison et al. 2017"
    spaces = (Factorised,)
    bias: ClassVar[Bias] = "biased"
    takes_slopes = True
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

    def __init__(self, space: Space, settings: Settings, features: int = 0) -> None:
        super().__init__(space, settings, features)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples

    @property
    def temperature(self) -> float:
        s = self.settings
        t = int(self.step) // s.every * s.every
        return max(s.minimum, s.initial * math.exp(-s.rate * t))

    def noisy(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *scores"]:
        """Perturbed scores over the temperature."""
        noise = self.space.noise(q.scores, sampler, self.settings.samples)
        return (q.scores[:, None] + noise) / self.temperature

    def relax(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *point"]:
        """Relaxed samples, with the scores' gradient."""
        return self.space.soft(self.noisy(q, sampler))

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        z = self.relax(q, sampler)
        weight = q.scores.new_full(z.shape[:2], 1 / self.settings.samples)
        return Proposal.rectangular(z, weight, slopes=True)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert evaluated.slopes is not None
        z = proposal.extras["z"]
        through = (evaluated.slopes.view_as(z) * z).flatten(1).sum(dim=1)
        return Estimate(
            objective=evaluated.costs.view(len(z), -1).mean(dim=1),
            surrogate=through / self.settings.samples,
            diagnostics={"temperature": evaluated.costs.new_tensor(self.temperature)},
        )

    def update(self, proposal: Proposal, evaluated: Evaluated, estimate: Estimate) -> None:
        self.step += 1


@register
class StraightThroughGumbel(GumbelSoftmax):
    """The decoder sees the vertex nearest to the relaxed sample; the gradient is the latter's."""

    name = "st-gumbel"
    citation = "Jang et al. 2017"

    def relax(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *point"]:
        noisy = self.noisy(q, sampler)
        soft = self.space.soft(noisy)
        hard = self.space.point(self.space.best(noisy), soft.dtype)
        return hard + (soft - soft.detach())
