"""Control variates from a relaxation of z, whose own gradient is pathwise.

The best assignment b of the perturbed scores ζ = scores + noise is a sample of q. With ζ̃ drawn anew
given b, any function c of ζ has, as E[c(ζ̃) | b] s(b) + ∂E[c(ζ̃) | b] = ∂E[c(ζ)] on average over b,

    g = (f(b) − c(ζ̃)) s(b) + ∂c(ζ)/∂scores − ∂c(ζ̃)/∂scores

for an unbiased estimate. c is η times the cost of the relaxed point (`rebar`), a network (`relax`),
or both (`relax-rebar`), trained to make ‖g‖² small. ζ̃ has its own noise, or it is ζ itself, as a
function of the scores given b: its law is the same, and one relaxed cost is enough.

The temperature τ of the relaxation is a setting, or trained too. The slope of ‖g‖² in it has second
derivatives of the cost in it, which a decoder need not have. So it is taken as a difference: g is
the mean of g₊ and g₋, at τ e^δ and τ e^−δ, unbiased as both are, and

    ∂‖g‖² / ∂ log τ = (‖g₊‖² − ‖g₋‖²) / 2δ + O(δ²)
"""

import math
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from estimators.base import Bias, Estimate, Evaluated, Proposal, surrogate_of
from estimators.registry import register
from estimators.sampled.sampling import Sampling, SamplingSettings
from estimators.sampler import Sampler
from estimators.searched import SAMPLES, Choices, Range
from estimators.spaces.base import Factorised, Space
from estimators.spaces.distribution import Distribution

STEP = 0.05
"""δ."""
LOWEST, HIGHEST = -7.0, 5.0
"""Of log τ, beyond which nothing changes but rounding."""


class Control(nn.Module):
    """A network of a relaxed point and of x."""

    def __init__(self, space: Space, hidden: int, features: int) -> None:
        super().__init__()
        self.features = features
        width = math.prod(space.point_shape) + features
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.Softplus(), nn.Linear(hidden, 1))

    def forward(
        self, point: Float[Tensor, "B S *point"], features: Float[Tensor, "B F"]
    ) -> Float[Tensor, "B S"]:
        x = features[:, None].expand(-1, point.shape[1], -1)[:, :, : self.features]
        found: Tensor = self.layers(torch.cat([point.flatten(2), x], dim=2)).squeeze(2)
        return found


class RelaxedControl(Sampling):
    """c is η times the cost of the relaxed point where it takes slopes, and a network if any."""

    spaces = (Factorised,)
    bias: ClassVar[Bias] = "unbiased"
    searched_training = frozenset({"baseline_learning_rate"})

    class Settings(SamplingSettings, frozen=True):
        samples: Annotated[int, SAMPLES] = Field(1, ge=1, description="samples of z for each row")
        temperature: Annotated[float, Range(0.1, 1, log=True)] = Field(
            0.5, gt=0, description="of the relaxation, or what it starts from"
        )
        temperature_is: Annotated[Literal["fixed", "trained"], Choices(costs=True)] = Field(
            "fixed", description="trained by means of two near each other: twice the relaxations"
        )
        noise: Annotated[Literal["tied", "independent"], Choices(costs=True)] = Field(
            "tied", description="of the relaxed sample given z: that of z itself, or its own"
        )

    settings: Settings

    def __init__(self, space: Space, settings: Settings, features: int = 0) -> None:
        super().__init__(space, settings, features)
        self.strength = nn.Parameter(torch.zeros(())) if self.takes_slopes else None
        self.log_temperature = None
        if settings.temperature_is == "trained":
            self.log_temperature = nn.Parameter(torch.tensor(settings.temperature).log())
        self.network: Control | None = None

    @property
    def temperatures(self) -> list[float]:
        if self.log_temperature is None:
            return [self.settings.temperature]
        log = min(max(float(self.log_temperature.detach()), LOWEST), HIGHEST)
        return [math.exp(log + step) for step in (STEP, -STEP)]

    @property
    def calls_per_row(self) -> int:
        points = 1 if self.settings.noise == "tied" else 2
        if self.settings.temperature_is == "trained":
            points *= 2
        return self.settings.samples * (1 + points * self.takes_slopes)

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
        self, scores: Float[Tensor, "B #S *scores"], drawn: dict[str, Tensor], at: float
    ) -> tuple[Float[Tensor, "B S *point"], Float[Tensor, "B S *point"]]:
        """The points of ζ̃ and of ζ at a temperature, as functions of the scores."""
        assert isinstance(self.space, Factorised)
        given = self.space.perturbed_given(scores, drawn["b"], drawn["own"])
        return self.space.soft(given / at), self.space.soft((scores + drawn["noise"]) / at)

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        drawn, scores = self.drawn(q, sampler), q.scores.detach()[:, None]
        parts, samples = [drawn["b"]], self.settings.samples
        for at in self.temperatures if self.takes_slopes else ():
            given, free = self.relaxed(scores, drawn, at)
            parts += [given] if self.settings.noise == "tied" else [given, free]
        z = torch.cat(parts, dim=1)
        weight = q.scores.new_zeros(z.shape[:2])
        weight[:, :samples] = 1 / samples
        slopes = self.takes_slopes and weight == 0
        return Proposal.rectangular(z, weight, slopes, **drawn, features=features)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        samples, drawn, times = self.settings.samples, proposal.extras, len(self.temperatures)
        costs = evaluated.costs.view(len(q.scores), -1, samples)
        f, s = costs[:, 0], drawn["b"] - self.space.soft(q.scores.detach())[:, None]
        found = []
        for number, at in enumerate(self.temperatures):
            leaf = q.scores.detach()[:, None].repeat_interleave(samples, 1).requires_grad_()
            with torch.enable_grad():
                given, free = self.relaxed(leaf, drawn, at)
            signal, change = f, torch.zeros_like(leaf)
            if self.strength is not None:
                assert evaluated.slopes is not None
                # Of the points of ζ̃, and of ζ where it is another.
                c = costs[:, 1:].unflatten(1, (times, -1))[:, number]
                slopes = evaluated.slopes.view(len(f), times, -1, *s.shape[1:])[:, number]
                with torch.enable_grad():
                    path = (slopes[:, -1] * free).sum() - (slopes[:, 0] * given).sum()
                (along,) = torch.autograd.grad(path, leaf, retain_graph=True)
                change = 2 * self.strength.sigmoid() * (along - _times(c[:, 0], s))
            if self.network is not None:
                with torch.enable_grad():
                    at_given = self.network(given, drawn["features"])
                    path = self.network(free, drawn["features"]).sum() - at_given.sum()
                    (along,) = torch.autograd.grad(path, leaf, create_graph=True)
                    signal, change = f - at_given, change + along
            found.append(_times(signal, s) + change)
        return self.estimate(q, f, found)

    def estimate(
        self, q: Distribution, f: Float[Tensor, "B S"], found: list[Float[Tensor, "B S *scores"]]
    ) -> Estimate:
        """From g at each temperature."""
        at = self.temperatures
        g = torch.stack(found).mean(dim=0)
        loss = _square(g)
        if self.log_temperature is not None:
            with torch.no_grad():
                slope = (_square(found[0]) - _square(found[1])) / (2 * STEP)
            loss = loss + slope * (self.log_temperature - self.log_temperature.detach())
        return Estimate(
            objective=f.mean(dim=1),
            surrogate=surrogate_of(g.mean(dim=1), q.scores),
            own_loss=loss,
            diagnostics={"temperature": f.new_tensor(math.prod(at) ** (1 / len(at)))},
        )


@register
class REBAR(RelaxedControl):
    """c(ζ) = η f(softmax(ζ / τ)): two costs a sample with tied noise, three without; where τ is
    trained, three and five."""

    name = "rebar"
    citation = "Tucker et al. 2017"
    takes_slopes = True


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
        self.network = Control(space, settings.hidden, features)


@register
class RELAXOnREBAR(RELAX):
    """c is REBAR's and a network's together: as many costs as `rebar`."""

    name = "relax-rebar"
    takes_slopes = True


def _square(g: Float[Tensor, "B S *scores"]) -> Float[Tensor, ""]:
    return g.square().flatten(2).sum(dim=2).mean()


def _times(
    signal: Float[Tensor, "B S"], score: Float[Tensor, "B S *point"]
) -> Float[Tensor, "B S *point"]:
    return torch.einsum("bs,bs...->bs...", signal, score)
