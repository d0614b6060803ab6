"""Control variates from slopes: the cost is expanded to first order, and the rest is sampled.

With s(z) = ∇ log q(z) = point(z) − μ, and J = ∂μ/∂scores of the marginals μ, any h that is linear
in the point has E[h(z) s(z)] = J ∇h in closed form, so that

    g = (f(z) − h(z)) s(z) + J ∇h

is unbiased, and has no variance where f is h. MuProp expands f around the mean, double control
variates around each of the other samples.
"""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import Tensor, nn

from estimators.base import Bias, Estimate, Evaluated, Proposal, surrogate_of
from estimators.registry import register
from estimators.sampled.sampling import Sampling, SamplingSettings
from estimators.sampler import Sampler
from estimators.searched import SAMPLES, Range
from estimators.spaces.base import Factorised, Space
from estimators.spaces.distribution import Distribution


class ControlVariate(Sampling):
    """S samples, whose slopes a subclass may ask for beside further points."""

    spaces: ClassVar[tuple[type[Space], ...]] = (Factorised,)
    bias: ClassVar[Bias] = "unbiased"
    takes_slopes = True
    searched_training = frozenset({"baseline_learning_rate"})

    class Settings(SamplingSettings, frozen=True):
        samples: Annotated[int, SAMPLES] = Field(1, ge=1, description="samples of z for each row")

    settings: Settings

    def sampled(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *point"]:
        return self.space.point(q.sample(sampler, self.settings.samples), q.scores.dtype)

    def pulled_back(
        self, mean: Float[Tensor, "B *point"], slope: Float[Tensor, "B *point"]
    ) -> Float[Tensor, "B *scores"]:
        """J times a slope."""
        assert isinstance(self.space, Factorised)
        return self.space.pulled_back(mean, slope)


@register
class MuProp(ControlVariate):
    """h(z) = η₀ f(μ) + η₁ ⟨f'(μ), z − μ⟩, with η trained to make f − h small."""

    name = "muprop"
    citation = "Gu et al. 2016"

    def __init__(self, space: Space, settings: BaseModel, features: int = 0) -> None:
        super().__init__(space, settings, features)
        self.scales = nn.Parameter(torch.zeros(2))

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples + 1

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        samples = self.settings.samples
        mean = self.space.soft(q.scores.detach())
        z = torch.cat([self.sampled(q, sampler), mean[:, None]], dim=1)
        weight = q.scores.new_full(z.shape[:2], 1 / samples)
        weight[:, samples] = 0
        return Proposal.rectangular(z, weight, slopes=weight == 0)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert evaluated.slopes is not None
        f, at_mean = evaluated.costs.view(len(q.scores), -1).tensor_split([-1], dim=1)
        points, mean = proposal.extras["z"].tensor_split([-1], dim=1)
        away, slope = points - mean, evaluated.slopes
        constant, linear = 2 * self.scales.sigmoid()
        along = (away * slope[:, None]).flatten(2).sum(dim=2)
        signal = f - constant * at_mean - linear * along
        score = _weighted(signal.detach(), away)
        g = score + linear.detach() * self.pulled_back(mean.squeeze(1), slope)
        return Estimate(
            objective=f.mean(dim=1),
            surrogate=surrogate_of(g, q.scores),
            own_loss=signal.square().mean(),
            diagnostics={"baseline_error": signal.detach().square().mean()},
        )


class FromOthers(ControlVariate):
    """Of n samples with a slope each, what one is compared with comes from the others."""

    class Settings(ControlVariate.Settings, frozen=True):
        samples: Annotated[int, Range(2, 16, log=True, costs=True)] = Field(
            4, ge=2, description="samples of z for each row"
        )

    settings: Settings

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        z = self.sampled(q, sampler)
        weight = q.scores.new_full(z.shape[:2], 1 / self.settings.samples)
        return Proposal.rectangular(z, weight, slopes=True, features=features)


@register
class DoubleControlVariates(FromOthers):
    """Leave-one-out, of costs with a control variate each from the slopes at the other samples.

    v_k = f_k + α ⟨G_k, z_k − μ⟩,   G_k = mean_{j≠k} f'(z_j)
    g = mean_k (v_k − mean_{j≠k} v_j) s(z_k) − α J mean_k f'(z_k)

    α is trained to make the mean of ‖g‖² small; at α = 0, where it starts, this is `rloo`.
    """

    name = "double-cv"
    citation = "Titsias & Shi 2022"

    def __init__(self, space: Space, settings: BaseModel, features: int = 0) -> None:
        super().__init__(space, settings, features)
        self.strength = nn.Parameter(torch.zeros(()))

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert evaluated.slopes is not None
        points, others = proposal.extras["z"], self.settings.samples - 1
        f, slopes = evaluated.costs.view(points.shape[:2]), evaluated.slopes.view_as(points)
        mean = self.space.soft(q.scores.detach())
        away = points - mean[:, None]
        guess = (slopes.sum(dim=1, keepdim=True) - slopes) / others
        along = (guess * away).flatten(2).sum(dim=2)
        plain = _weighted(_against_others(f), away)
        change = _weighted(_against_others(along), away)
        change = change - self.pulled_back(mean, slopes.mean(dim=1))
        g = plain + self.strength * change
        return Estimate(
            objective=f.mean(dim=1),
            surrogate=surrogate_of(g, q.scores),
            own_loss=g.square().flatten(1).sum(dim=1).mean(),
            diagnostics={"strength": self.strength.detach().clone()},
        )


def _against_others(values: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
    """Each less the mean of the others."""
    return (values - values.mean(dim=1, keepdim=True)) * (values.shape[1] / (values.shape[1] - 1))


def _weighted(
    signal: Float[Tensor, "B S"], away: Float[Tensor, "B S *point"]
) -> Float[Tensor, "B *point"]:
    """The mean of signals times what they are signals for."""
    return torch.einsum("bs,bs...->b...", signal, away) / signal.shape[1]
