"""SPIGOT and its relatives: the slope moves a point, and what it moves to is the target."""

from typing import Annotated, Literal, Self

from jaxtyping import Float
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from estimators.base import Estimate, Evaluated, Knob, Proposal
from estimators.oracles.through import ThroughOracle, slopes_at
from estimators.registry import register
from estimators.sampler import Sampler
from estimators.searched import Choices, Range
from estimators.spaces.distribution import Distribution
from estimators.spaces.forbidden import marked


@register
class Spigot(ThroughOracle):
    """(start − target) / η, from the point that the decoder sees to one that costs less.

    spigot         start MAP(θ), target P(start − η g), P the projection on the hull of all points
    ste-identity   start MAP(θ), target start − η g: straight-through, the gradient is g
    ce             start μ, the marginals, target P(start − η g)
    eg             start μ, target μ(θ − η g): as η → 0 the gradient is that of f(μ)

    The papers have start − target, where η scales the gradient too. Over η it is of the size of g:
    ste-identity does not depend on η, the others have a limit as η → 0, and the entropy's gradient
    weighs as much beside it as with any other estimator. There is no noise, and no variance.
    """

    name = "spigot"
    citation = "Peng et al. 2018; Mihaylova et al. 2020"
    knobs = (Knob("step", (0.1, 1.0, 10.0)),)

    class Settings(BaseModel, extra="forbid", frozen=True):
        target: Annotated[Literal["spigot", "ste-identity", "ce", "eg"], Choices()] = Field(
            "spigot", description="what the point is pulled to, and which point that is"
        )
        step: Annotated[float, Range(0.01, 10, log=True)] = Field(
            1.0, gt=0, description="η, how far it moves against the slope"
        )

        @model_validator(mode="after")
        def _moves(self) -> Self:
            if self.target == "ste-identity" and self.step != 1:
                raise ValueError("the gradient of ste-identity has no step in it: leave it at 1")
            return self

    settings: Settings

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        scores = q.scores.detach()[:, None]
        marginals = self.settings.target in ("ce", "eg")
        return self.proposal(self.space.soft(scores) if marginals else self.vertex(scores))

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        start, step = proposal.extras["z"], self.settings.step
        g = slopes_at(start, evaluated)
        if self.settings.target == "ste-identity":
            return self.estimate(q, evaluated, g.squeeze(1))
        if self.settings.target == "eg":
            target = self.space.soft(q.scores.detach()[:, None] - step * g)
        else:
            target = self.space.nearest(marked(start - step * g, q.scores.detach()[:, None]))
        return self.estimate(q, evaluated, (start - target).squeeze(1) / step)
