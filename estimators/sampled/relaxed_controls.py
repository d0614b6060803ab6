"""Control variates from a relaxation of z, whose own gradient is pathwise.

The best assignment b of the perturbed scores ζ = scores + noise is a sample of q. With ζ̃ drawn anew
given b, any function c of ζ has, as E[c(ζ̃) | b] s(b) + ∂E[c(ζ̃) | b] = ∂E[c(ζ)] on average over b,

    g = (f(b) − c(ζ̃)) s(b) + ∂c(ζ)/∂scores − ∂c(ζ̃)/∂scores

for an unbiased estimate. c is the cost of the relaxed point, times η (`rebar`), or a network
(`relax`), trained to make ‖g‖² small. ζ̃ has its own noise, or it is ζ itself, as a function of the
scores given b: its law is the same, and one relaxed cost is enough.
"""

from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import Tensor, nn

from estimators.base import Bias, Estimate, Estimator, Evaluated, Proposal
from estimators.registry import register
from estimators.sampler import Sampler
from estimators.searched import SAMPLES, Choices, Range
from estimators.spaces.base import Factorised, Space
from estimators.spaces.distribution import Distribution


class RelaxedControl(Estimator):
    """What both have in common: the noise, and g from the values and slopes of c."""

    spaces = (Factorised,)
    bias: ClassVar[Bias] = "unbiased"
    searched_training = frozenset({"baseline_learning_rate"})

    class Settings(BaseModel, extra="forbid", frozen=True):
        samples: Annotated[int, SAMPLES] = Field(1, ge=1, description="samples of z for each row")
        temperature: Annotated[float, Range(0.1, 1, log=True)] = Field(
            0.5, gt=0, description="of the relaxation"
        )
        noise: Annotated[Literal["tied", "independent"], Choices()] = Field(
            "tied", description="of the relaxed sample given z: that of z itself, or its own"
        )

    settings: Settings

    def drawn(self, q: Distribution, sampler: Sampler) -> dict[str, Tensor]:
        """b as a point, the noise (B, S, …) of ζ, and that of ζ̃ given b."""
        assert isinstance(self.space, Factorised)
        scores, samples = q.scores.detach(), self.settings.samples
        noise = self.space.noise(scores, sampler, samples)
        perturbed = scores[:, None] + noise
        b = self.space.point(self.space.best(perturbed), scores.dtype)
        if self.settings.noise == "tied":
            own = self.space.noise_given(scores[:, None], b, perturbed)
        else:
            own = self.space.noise(scores, sampler, samples)
        return {"b": b, "noise": noise, "own": own}

    def relaxed(
        self, scores: Float[Tensor, "B #S *scores"], drawn: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "B S *point"], Float[Tensor, "B S *point"]]:
        """The relaxed points of ζ and of ζ̃, as functions of the scores."""
        assert isinstance(self.space, Factorised)
        given = self.space.perturbed_given(scores, drawn["b"], drawn["own"])
        at = self.settings.temperature
        return self.space.soft((scores + drawn["noise"]) / at), self.space.soft(given / at)

    def score(self, q: Distribution, b: Float[Tensor, "B S *point"]) -> Float[Tensor, "B S *point"]:
        """s(b)."""
        return b - self.space.soft(q.scores.detach())[:, None]

    def estimate(
        self, q: Distribution, f: Float[Tensor, "B S"], g: Float[Tensor, "B S *scores"]
    ) -> Estimate:
        mean = g.detach().mean(dim=1)
        return Estimate(
            objective=f.mean(dim=1),
            surrogate=(mean * q.scores).flatten(1).sum(dim=1),
            own_loss=g.square().flatten(2).sum(dim=2).mean(),
        )


@register
class REBAR(RelaxedControl):
    """c(ζ) = η f(softmax(ζ / τ)), with η trained and τ a setting.

    Two costs a sample with tied noise, three without.
    """

    name = "rebar"
    citation = "Tucker et al. 2017"
    takes_slopes = True

    def __init__(self, space: Space, settings: BaseModel, features: int = 0) -> None:
        super().__init__(space, settings, features)
        self.strength = nn.Parameter(torch.zeros(()))

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples * (2 if self.settings.noise == "tied" else 3)

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        drawn = self.drawn(q, sampler)
        free, given = self.relaxed(q.scores.detach()[:, None], drawn)
        parts = [drawn["b"], given] if self.settings.noise == "tied" else [drawn["b"], given, free]
        z = torch.cat(parts, dim=1)
        weight = q.scores.new_zeros(z.shape[:2])
        weight[:, : self.settings.samples] = 1 / self.settings.samples
        return Proposal.rectangular(z, weight, slopes=weight == 0, **drawn)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert evaluated.slopes is not None
        samples, drawn = self.settings.samples, proposal.extras
        costs = evaluated.costs.view(len(q.scores), -1)
        f, control = costs[:, :samples], costs[:, samples : 2 * samples]
        slopes = evaluated.slopes.view(len(f), -1, *drawn["b"].shape[2:])
        at_given, at_free = slopes[:, :samples], slopes[:, -samples:]
        with torch.enable_grad():
            leaf = q.scores.detach()[:, None].repeat_interleave(samples, 1).requires_grad_()
            free, given = self.relaxed(leaf, drawn)
            path = (at_free * free).sum() - (at_given * given).sum()
        (change,) = torch.autograd.grad(path, leaf)
        s = self.score(q, drawn["b"])
        change = change - _times(control, s)
        return self.estimate(q, f, _times(f, s) + 2 * self.strength.sigmoid() * change)


@register
class RELAX(RelaxedControl):
    """c is a network of ζ's relaxed point and of x: one cost a sample."""

    name = "relax"
    citation = "Grathwohl et al. 2018"

    class Settings(RelaxedControl.Settings, frozen=True):
        hidden: int = Field(128, ge=1, description="width of the network's hidden layer")

    settings: Settings

    def __init__(self, space: Space, settings: Settings, features: int = 0) -> None:
        super().__init__(space, settings, features)
        width = torch.Size(space.point_shape).numel() + features
        self.network = nn.Sequential(
            nn.Linear(width, settings.hidden), nn.Softplus(), nn.Linear(settings.hidden, 1)
        )

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        drawn = self.drawn(q, sampler) | {"features": features}
        weight = q.scores.new_full(drawn["b"].shape[:2], 1 / self.settings.samples)
        return Proposal.rectangular(drawn["b"], weight, **drawn)

    def control(
        self, point: Float[Tensor, "B S *point"], features: Float[Tensor, "B F"]
    ) -> Float[Tensor, "B S"]:
        """c."""
        x = features[:, None].expand(-1, point.shape[1], -1)[:, :, : self.features]
        found: Tensor = self.network(torch.cat([point.flatten(2), x], dim=2)).squeeze(2)
        return found

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        samples, drawn = self.settings.samples, proposal.extras
        f = evaluated.costs.view(-1, samples)
        with torch.enable_grad():
            leaf = q.scores.detach()[:, None].repeat_interleave(samples, 1).requires_grad_()
            at_free, at_given = (
                self.control(point, drawn["features"]) for point in self.relaxed(leaf, drawn)
            )
            path = at_free.sum() - at_given.sum()
            (change,) = torch.autograd.grad(path, leaf, create_graph=True)
            g = _times(f - at_given, self.score(q, drawn["b"])) + change
        return self.estimate(q, f, g)


def _times(
    signal: Float[Tensor, "B S"], score: Float[Tensor, "B S *point"]
) -> Float[Tensor, "B S *point"]:
    return torch.einsum("bs,bs...->bs...", signal, score)
