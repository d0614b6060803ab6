"""Estimators from what a sample costs when one of its variables has another value.

With z ~ q and p_v the probabilities of variable v, which is independent of the others,

    ∇ E_q[f] = E_q[Σ_v Σ_c f(z with z_v = c) ∇ p_v(c)]

Of a bit that is θ (1 − θ) [f(z with 1) − f(z with 0)]. All terms are evaluated, or those of one
variable. The decoder's weights are conditional probabilities too: Σ_c p_v(c) f(z with z_v = c) has
the mean E_q[f] for any v.
"""

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from estimators.base import Bias, Estimate, Evaluated, Proposal, surrogate_of
from estimators.registry import register
from estimators.sampled.coupled import coupled_bits, opposite
from estimators.sampled.sampling import Sampling, SamplingSettings
from estimators.sampler import Sampler
from estimators.searched import SAMPLES
from estimators.spaces.base import Factorised, Space
from estimators.spaces.bits import Bits
from estimators.spaces.categoricals import Categoricals
from estimators.spaces.distribution import Distribution


def flipped(z: Float[Tensor, "B S D"], which: Int[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
    """With one bit the other way."""
    return z.scatter(2, which[..., None], 1 - z.gather(2, which[..., None]))


def chance_of_flip(
    z: Float[Tensor, "B S D"], scores: Float[Tensor, "B D"]
) -> Float[Tensor, "B S D"]:
    """The probability of the value that each bit does not have."""
    return ((1 - 2 * z) * scores[:, None]).sigmoid()


class Flips(Sampling):
    """S samples, each with others that differ from it."""

    spaces: ClassVar[tuple[type[Space], ...]] = (Bits,)
    bias: ClassVar[Bias] = "unbiased"

    class Settings(SamplingSettings, frozen=True):
        samples: Annotated[int, SAMPLES] = Field(
            1, ge=1, description="samples of z for each row, without those that differ in one value"
        )

    settings: Settings


@register
class LocalExpectation(Flips):
    """Every variable at every value: D + 1 decoder calls a sample, or V (C − 1) + 1."""

    name = "local-expectation"
    citation = "Titsias & Lázaro-Gredilla 2015"
    spaces = (Factorised,)

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples * (1 + self.space.dimension)

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        z = q.sample(sampler, self.settings.samples)
        scores = q.scores.detach()
        if isinstance(self.space, Bits):
            turned = torch.eye(z.shape[2], dtype=torch.bool, device=z.device)
            others = torch.where(turned, 1 - z[:, :, None], z[:, :, None])
            weight = chance_of_flip(z, scores) / z.shape[2]
        else:
            assert isinstance(self.space, Categoricals)
            values = self.values(z)
            own = torch.eye(z.shape[2], dtype=torch.bool, device=z.device)[:, None]
            others = torch.where(own, values[..., None], z[:, :, None, None]).flatten(2, 3)
            p = self.space.soft(scores)[:, None].expand(-1, z.shape[1], -1, -1)
            weight = p.gather(3, values).flatten(2) / z.shape[2]
        every = torch.cat([z[:, :, None], others], dim=2).flatten(1, 2)
        weight = torch.cat([1 - weight.sum(dim=2, keepdim=True), weight], dim=2).flatten(1)
        return Proposal.rectangular(every, weight / self.settings.samples, sample=z)

    def values(self, z: Int[Tensor, "B S V"]) -> Int[Tensor, "B S V others"]:
        """Those that each variable does not have."""
        assert isinstance(self.space, Categoricals)
        away = torch.arange(1, self.space.categories, device=z.device)
        return (z[..., None] + away) % self.space.categories

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert proposal.decoder_weight is not None
        assert isinstance(self.space, Factorised)
        z = proposal.extras["sample"]
        f = evaluated.costs.view(*z.shape[:2], -1)
        own, others = f[..., :1], f[..., 1:]
        if isinstance(self.space, Bits):
            slope = (own - others) * (2 * z - 1)
        else:
            values = self.values(z)
            slope = own[..., None].expand(*z.shape, self.space.point_shape[1])
            slope = slope.scatter(3, values, others.view_as(values).to(slope.dtype))
        mean = self.space.soft(q.scores.detach())
        gradient = self.space.pulled_back(mean, slope.mean(dim=1))
        weighted = (proposal.decoder_weight * evaluated.costs).view(len(z), -1)
        return Estimate(weighted.sum(dim=1), surrogate_of(gradient, q.scores))


@register
class BitFlip(Flips):
    """One bit j, drawn uniformly: D θ_j (1 − θ_j) [f(z with 1) − f(z with 0)], others zero."""

    name = "bitflip"
    citation = "Kunes et al. 2023"

    @property
    def calls_per_row(self) -> int:
        return 2 * self.settings.samples

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        scores, samples = q.scores.detach(), self.settings.samples
        z = q.sample(sampler, samples)
        which = sampler.categorical(torch.ones_like(scores), samples)
        both = torch.stack([z, flipped(z, which)], dim=2).flatten(1, 2)
        other = chance_of_flip(z, scores).gather(2, which[..., None])
        weight = torch.cat([1 - other, other], dim=2).flatten(1) / samples
        return Proposal.rectangular(both, weight, sample=z, which=which)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert proposal.decoder_weight is not None
        z, which = proposal.extras["sample"], proposal.extras["which"]
        f = evaluated.costs.view(*z.shape[:2], 2)
        gradient = one_bit(q, z, which, f[..., 0] - f[..., 1])
        weighted = (proposal.decoder_weight * evaluated.costs).view(len(z), -1)
        return Estimate(weighted.sum(dim=1), surrogate_of(gradient.mean(dim=1), q.scores))


def one_bit(
    q: Distribution,
    z: Float[Tensor, "B S D"],
    which: Int[Tensor, "B S"],
    difference: Float[Tensor, "B S"],
) -> Float[Tensor, "B S D"]:
    """The gradient from what z costs more than with one of its bits flipped."""
    theta = q.scores.detach().sigmoid()[:, None]
    every = z.shape[2] * theta * (1 - theta) * (2 * z - 1) * difference[..., None]
    chosen = torch.zeros_like(z).scatter(2, which[..., None], 1)
    return every * chosen


@register
class UGC(Flips):
    """A bit that is nearly certain, min(θ, 1 − θ) < 1 / 2D, takes bitflip; any other DisARM.

    Where θ is near 0 or 1, antithetic samples seldom differ and count for much when they do. z is
    shared: three decoder calls a sample.
    """

    name = "ugc"
    citation = "Kunes et al. 2023"

    @property
    def calls_per_row(self) -> int:
        return 3 * self.settings.samples

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        scores, samples = q.scores.detach(), self.settings.samples
        pair = coupled_bits(scores, samples, 2, sampler)
        which = sampler.categorical(torch.ones_like(scores), samples)
        third = flipped(pair[:, :, 0], which)[:, :, None]
        weight = scores.new_tensor([0.5, 0.5, 0]).repeat(len(scores), samples) / samples
        every = torch.cat([pair, third], dim=2).flatten(1, 2)
        return Proposal.rectangular(every, weight, pair=pair, which=which)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        pair, which = proposal.extras["pair"], proposal.extras["which"]
        z, scores = pair[:, :, 0], q.scores.detach()
        f = evaluated.costs.view(*z.shape[:2], 3)
        rarer = (-scores.abs()).sigmoid()[:, None]
        disarm = (f[..., 0] - f[..., 1])[..., None] * opposite(scores, pair)
        single = one_bit(q, z, which, f[..., 0] - f[..., 2])
        gradient = torch.where(rarer < 0.5 / z.shape[2], single, disarm)
        return Estimate(f[..., :2].mean(dim=(1, 2)), surrogate_of(gradient.mean(dim=1), q.scores))
