"""Relaxations with Gumbel noise: Gumbel-Softmax and its straight-through variants.

    z = soft((scores + G) / τ):   a softmax for a category,   a sigmoid for a bit

with G standard Gumbel noise, for a bit logistic (Jang et al. 2017; Maddison et al. 2017). The
gradient flows through z, so that the decoder must take points between the vertices:

    ⟨∂f/∂z, ∂z/∂scores⟩

It is exact for the relaxed cost, and biased for the discrete one.
"""

import math
from dataclasses import replace
from typing import Annotated, ClassVar, Self

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from estimators.base import Estimate, Evaluated, Knob, Proposal
from estimators.pathwise import Pathwise, PathwiseSettings, straight_through
from estimators.registry import register
from estimators.sampler import Sampler
from estimators.searched import Range
from estimators.spaces.base import Factorised, Space
from estimators.spaces.distribution import Distribution


@register
class GumbelSoftmax(Pathwise):
    """A relaxed sample at temperature τ = max(minimum, initial · exp(−rate · t)), t the step."""

    name = "gumbel"
    citation = "Jang et al. 2017; Maddison et al. 2017"
    spaces = (Factorised,)
    knobs: ClassVar[tuple[Knob, ...]] = (Knob("initial", (0.5, 1.0, 2.0)),)

    class Settings(PathwiseSettings, frozen=True):
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
    def temperature(self) -> float:
        s = self.settings
        t = int(self.step) // s.every * s.every
        return max(s.minimum, s.initial * math.exp(-s.rate * t))

    def noisy(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *scores"]:
        """Perturbed scores over the temperature."""
        noise = self.space.noise(q.scores, sampler, self.settings.samples)
        return (q.scores[:, None] + noise) / self.temperature

    def relax(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *point"]:
        return self.space.soft(self.noisy(q, sampler))

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        at = {"temperature": evaluated.costs.new_tensor(self.temperature)}
        return replace(super().combine(q, proposal, evaluated), diagnostics=at)

    def update(self, proposal: Proposal, evaluated: Evaluated, estimate: Estimate) -> None:
        self.step += 1


@register
class StraightThroughGumbel(GumbelSoftmax):
    """The decoder sees the vertex nearest to the relaxed sample; the gradient is the latter's.

    The vertex is the same at every temperature, so that only the one of the gradient counts: with
    `backward_temperature` it is a constant (decoupled: Shah et al. 2024).
    """

    name = "st-gumbel"
    citation = "Jang et al. 2017"

    class Settings(GumbelSoftmax.Settings, frozen=True):
        backward_temperature: float | None = Field(
            None, gt=0, description="constant, of the gradient; by default it falls as said above"
        )

    settings: Settings

    @property
    def temperature(self) -> float:
        return self.settings.backward_temperature or super().temperature

    def relax(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *point"]:
        noisy = self.noisy(q, sampler)
        soft = self.space.soft(noisy)
        return straight_through(self.space.point(self.space.best(noisy), soft.dtype), soft)


@register
class GumbelRao(StraightThroughGumbel):
    """The mean gradient of `st-gumbel` over R draws of the noise G given the vertex D:

        mean_r J(soft((scores + G_r) / τ)) ∂f/∂D / τ,   G_r ~ G | best(scores + G) = D

    Given D, G depends on the scores; the gradient does not flow there, so that the mean over D too
    is that of `st-gumbel`. One decoder call, whatever R is.
    """

    name = "gumbel-rao"
    citation = "Paulus et al. 2021"
    knobs = (*StraightThroughGumbel.knobs, Knob("draws", (1, 10, 100)))

    class Settings(StraightThroughGumbel.Settings, frozen=True):
        draws: Annotated[int, Range(1, 100, log=True)] = Field(
            10, ge=1, description="R, draws of the noise for each sample of z"
        )

    settings: Settings

    def relax(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *point"]:
        assert isinstance(self.space, Factorised)
        scores, own = q.scores[:, None], self.settings
        vertex = self.space.point(q.sample(sampler, own.samples), scores.dtype)
        noise = self.space.noise(q.scores, sampler, own.samples * own.draws)
        repeated = vertex.repeat_interleave(own.draws, dim=1)
        given = self.space.perturbed_given(scores.detach(), repeated, noise)
        soft = self.space.soft(straight_through(given, scores) / self.temperature)
        return straight_through(vertex, soft.unflatten(1, (own.samples, own.draws)).mean(dim=2))
