"""The oracle is asked a second time, with the scores moved against the slope.

    z = MAP(θ + ε),   z' = MAP(θ − λ g + ε),   gradient (z − z') / λ

with g the slope at z. Where z is a sample of q and f is linear, g is the same at every z, and the
expected gradient is the difference of marginals (μ(θ) − μ(θ − λ g)) / λ. It goes to J g, the exact
one, as λ → 0: without the 1/λ it would go to zero. Of another f, the z at which g is taken and how
far z is from the next depend on each other, and it has no such limit. Of a structure z is a sample
of perturb-and-MAP, as published, and the marginals are its own.
"""

from abc import abstractmethod
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import Tensor

from estimators.base import Estimate, Evaluated, Knob, Proposal
from estimators.oracles.through import ThroughOracle, slopes_at
from estimators.registry import register
from estimators.sampler import Sampler
from estimators.searched import DECAY, SAMPLES, Choices, Range
from estimators.spaces.base import Space
from estimators.spaces.distribution import Distribution
from estimators.spaces.forbidden import allowed


class SecondCall(ThroughOracle):
    """z, and what it is the best assignment of."""

    @abstractmethod
    def perturbed(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *scores"]:
        """θ + ε."""

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        perturbed = self.perturbed(q, sampler).detach()
        return self.proposal(self.vertex(perturbed), perturbed=perturbed)


class FixedStep(SecondCall):
    """λ is a setting."""

    knobs = (Knob("step", (0.1, 1.0, 10.0)),)

    class Settings(BaseModel, extra="forbid", frozen=True):
        step: Annotated[float, Range(0.01, 100, log=True)] = Field(
            1.0, gt=0, description="λ, how far the scores move against the slope"
        )

    settings: Settings

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        z, step = proposal.extras["z"], self.settings.step
        moved = self.vertex(proposal.extras["perturbed"] - step * slopes_at(z, evaluated))
        return self.estimate(q, evaluated, (z - moved).mean(dim=1) / step)


@register
class Blackbox(FixedStep):
    """ε = 0: z is the mode, and the gradient that of an interpolation of ⟨g, MAP(θ)⟩."""

    name = "blackbox"
    citation = "Vlastelica et al. 2020"

    def perturbed(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *scores"]:
        return q.scores[:, None]


@register
class IMLE(FixedStep):
    """The mean over S samples of z, each with the same noise ε in both calls."""

    name = "imle"
    citation = "Niepert et al. 2021"

    class Settings(FixedStep.Settings, frozen=True):
        samples: Annotated[int, SAMPLES] = Field(1, ge=1, description="samples of z for each row")

    settings: Settings

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples

    def perturbed(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *scores"]:
        return self.noisy(q, sampler)


@register
class AdaptiveIMLE(SecondCall):
    """λ = β ‖θ‖ / ‖g‖, and β follows how much changes between the two assignments.

    The norms are root mean squares over rows, g's over samples too: λ is of the whole batch, and
    does not depend on its size. A moving average counts the coordinates in which points differ; β
    rises by a step while these are too few, and falls by one where not. The central difference is
    (MAP(θ + λ g + ε) − MAP(θ − λ g + ε)) / 2λ. Where λ is 0, as at
    scores of exactly 0, nothing moves: there is no gradient.
    """

    name = "aimle"
    citation = "Minervini et al. 2023"

    class Settings(BaseModel, extra="forbid", frozen=True):
        samples: Annotated[int, SAMPLES] = Field(1, ge=1, description="samples of z for each row")
        difference: Annotated[Literal["forward", "central"], Choices()] = Field(
            "forward", description="of assignments: from z, or from as far on its other side"
        )
        start: float = Field(0.0, ge=0, description="β at the first step")
        change: Annotated[float, Range(1e-4, 1e-1, log=True)] = Field(
            1e-3, gt=0, description="of β a step"
        )
        changed: Annotated[float, Range(0.1, 10, log=True)] = Field(
            1.0, gt=0, description="coordinates of a point that are to change"
        )
        decay: Annotated[float, DECAY] = Field(
            0.9, ge=0, lt=1, description="share of the old average of these kept a step"
        )

    settings: Settings
    beta: Tensor
    average: Tensor

    def __init__(self, space: Space, settings: Settings, features: int = 0) -> None:
        super().__init__(space, settings, features)
        self.register_buffer("beta", torch.tensor(settings.start))
        self.register_buffer("average", torch.ones(()))

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples

    def perturbed(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *scores"]:
        return self.noisy(q, sampler)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        z, perturbed = proposal.extras["z"], proposal.extras["perturbed"]
        g = slopes_at(z, evaluated)
        ratio = _norm(allowed(q.scores.detach()), 1) / _norm(g, 2)
        step = torch.where(g.any(), self.beta * ratio, 0)
        central = self.settings.difference == "central"
        ahead = self.vertex(perturbed + step * g) if central else z
        away = ahead - self.vertex(perturbed - step * g)
        apart = 2 * step if central else step
        return self.estimate(
            q,
            evaluated,
            away.mean(dim=1) * torch.where(step > 0, 1 / apart, 0),
            step=step,
            changed=(away != 0).flatten(2).sum(dim=2, dtype=away.dtype).mean(),
        )

    def update(self, proposal: Proposal, evaluated: Evaluated, estimate: Estimate) -> None:
        settings = self.settings
        changed = estimate.diagnostics["changed"].to(self.average)
        self.average.lerp_(changed, 1 - settings.decay)
        few = self.average < settings.changed
        self.beta.add_(torch.where(few, settings.change, -settings.change)).clamp_(min=0)


def _norm(values: Float[Tensor, "B ..."], batch_dimensions: int) -> Float[Tensor, ""]:
    """Root mean square, over all rows, of the norms of what each has."""
    return values.flatten(batch_dimensions).square().sum(dim=-1).mean().sqrt()
