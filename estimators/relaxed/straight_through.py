"""Straight-through: the decoder sees a vertex, and its slope goes to the marginals, or beyond.

With D ~ q the vertex that the decoder sees, g = ∂f/∂D, μ = soft(scores), and J(μ) = ∂μ/∂scores,
J(μ) g is exact in expectation where f is linear in each variable (`st`). A structure is a variable:
J is the covariance of its point, and of subsets `st` is SIMPLE (Ahmed et al. 2023). All of these
draw from q itself, without noise on the scores.
"""

from typing import Annotated, ClassVar, Literal, Self

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from estimators.base import Estimate, Evaluated, ExactFor, Knob, Proposal, surrogate_of
from estimators.pathwise import Pathwise, PathwiseSettings, straight_through
from estimators.registry import register
from estimators.sampler import Sampler
from estimators.searched import Range
from estimators.spaces.base import Factorised, Space
from estimators.spaces.distribution import Distribution


class FromVertices(Pathwise):
    """S vertices, samples of q."""

    def vertices(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *point"]:
        return self.space.point(q.sample(sampler, self.settings.samples), q.scores.dtype)


@register
class StraightThrough(FromVertices):
    """The slope at a sample of q goes to the marginals at a temperature: J(soft(scores / τ)) g / τ.

    Or the decoder sees the mode, which is no sample of q, or the slope goes to the scores as if
    they were the point. Of subsets it is SIMPLE.
    """

    name = "st"
    citation = "Bengio et al. 2013; SIMPLE: Ahmed et al. 2023"
    knobs = (Knob("temperature", (0.5, 1.0, 2.0)),)

    class Settings(PathwiseSettings, frozen=True):
        temperature: Annotated[float, Range(0.5, 3, log=True)] = Field(
            1.0, gt=0, description="τ, of the marginals that the slope goes to"
        )
        forward: Literal["sample", "mode"] = Field(
            "sample", description="what the decoder sees: samples of z, or one mode"
        )
        backward: Literal["marginals", "identity"] = Field(
            "marginals", description="where its slope goes: to the marginals, or to the scores"
        )

        @model_validator(mode="after")
        def _count(self) -> Self:
            if self.forward == "mode" and self.samples > 1:
                raise ValueError("there is one mode: take one sample, or forward = sample")
            if self.backward == "identity" and self.temperature != 1:
                raise ValueError("with backward = identity there is no temperature: leave it at 1")
            return self

    settings: Settings

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples if self.settings.forward == "sample" else 1

    @property
    def exact_for(self) -> ExactFor | None:
        s = self.settings
        exact = (s.temperature, s.forward, s.backward) == (1, "sample", "marginals")
        return "multilinear" if exact else None

    def vertices(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *point"]:
        if self.settings.forward == "mode":
            return self.space.point(q.mode(), q.scores.dtype)[:, None]
        return super().vertices(q, sampler)

    def relax(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *point"]:
        scores = q.scores
        if self.settings.backward == "marginals":
            scores = self.space.soft(scores / self.settings.temperature)
        return straight_through(self.vertices(q, sampler), scores[:, None])


@register
class ReinMax(FromVertices):
    """2 J((soft(scores / τ) + D) / 2) g − ½ J(μ) g.

    The trapezoid rule in place of the first-order one, exact where f is quadratic. At τ = 1 it is,
    draw by draw, the mean of J(μ) g and (D − μ) ⟨D − μ, g⟩ of each variable (ZGR: Shekhovtsov
    2023). Of a bit it is that of two categories with the scores (θ, 0), where g is the difference.
    """

    name = "reinmax"
    citation = "Liu et al. 2023"
    spaces: ClassVar[tuple[type[Space], ...]] = (Factorised,)
    knobs = (Knob("temperature", (1.0, 1.3, 2.0)),)

    class Settings(PathwiseSettings, frozen=True):
        temperature: Annotated[float, Range(1, 2)] = Field(
            1.0, ge=1, description="τ, of the probabilities that are mixed with the sample"
        )

    settings: Settings

    @property
    def exact_for(self) -> ExactFor | None:
        return "quadratic" if self.settings.temperature == 1 else None

    def relax(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *point"]:
        return self.vertices(q, sampler)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert evaluated.slopes is not None
        assert isinstance(self.space, Factorised)
        vertex, scores = proposal.extras["z"], q.scores.detach()
        slope = evaluated.slopes.view_as(vertex)
        half = (self.space.soft(scores / self.settings.temperature)[:, None] + vertex) / 2
        gradient = 2 * self.space.pulled_back(half, slope).mean(dim=1)
        gradient -= self.space.pulled_back(self.space.soft(scores), slope.mean(dim=1)) / 2
        return Estimate(
            objective=evaluated.costs.view(len(scores), -1).mean(dim=1),
            surrogate=surrogate_of(gradient, q.scores),
        )


@register
class GappedStraightThrough(FromVertices):
    """J(soft(θ̃ / τ)) g / τ, with scores θ̃ that are made to have D as their best assignment.

    D's value of each variable gets the highest score, and all others are at least a gap below: what
    Gumbel noise does, without its variance. The changes are constants to the gradient. The gap is a
    number, or −log(1 − p) / p with p the probability of D's value.
    """

    name = "gapped-st"
    citation = "Fan et al. 2022"
    spaces: ClassVar[tuple[type[Space], ...]] = (Factorised,)
    knobs = (Knob("gap", (0.5, 1.0, 2.0)), Knob("temperature", (0.5, 1.0, 2.0)))

    class Settings(PathwiseSettings, frozen=True):
        temperature: Annotated[float, Range(0.5, 3, log=True)] = Field(
            1.0, gt=0, description="τ, of the marginals that the slope goes to"
        )
        gap: Annotated[float, Range(0.1, 3, log=True)] = Field(
            1.0, ge=0, description="from the score of the sample's value to all others, at least"
        )
        gap_from: Literal["number", "probability"] = Field(
            "number", description="that number, or one that follows from the value's probability"
        )

        @model_validator(mode="after")
        def _one_gap(self) -> Self:
            if self.gap_from == "probability" and self.gap != 1:
                raise ValueError("the gap is the probability's: leave the number at 1")
            return self

    settings: Settings

    def gap(
        self, scores: Float[Tensor, "B 1 *scores"], vertex: Float[Tensor, "B S *point"]
    ) -> Tensor | float:
        if self.settings.gap_from == "number":
            return self.settings.gap
        assert isinstance(self.space, Factorised)
        log_odds = self.space.log_odds(scores, vertex).clamp(min=-40)  # below, it is 1 to the bit
        return F.softplus(log_odds) / log_odds.sigmoid()

    def relax(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *point"]:
        assert isinstance(self.space, Factorised)
        vertex, scores = self.vertices(q, sampler), q.scores[:, None]
        fixed = scores.detach()
        moved = straight_through(self.space.gapped(fixed, vertex, self.gap(fixed, vertex)), scores)
        return straight_through(vertex, self.space.soft(moved / self.settings.temperature))
