"""Estimators of bits from samples that repel each other, while each by itself is a sample of q.

Of a bit i, θ_i = σ(score) is the probability to be on, and m = min(θ_i, 1 − θ_i). Bits are
independent of each other; of one bit, two samples z and z' are exchangeable. Then

    E[(f(z) − f(z')) (z_i − z'_i)] = 2 P(z_i = 1, z'_i = 0) E[f(z | z_i = 1) − f(z | z_i = 0)]

and the gradient is θ_i (1 − θ_i) times the last factor. Two independent samples differ in a bit, so
that it learns, with probability 2 θ_i (1 − θ_i), these ones with up to 2 m.
"""

from abc import abstractmethod
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from estimators.base import Bias, Estimate, Evaluated, Proposal, surrogate_of
from estimators.registry import register
from estimators.sampled.sampling import Sampling, SamplingSettings
from estimators.sampler import Sampler
from estimators.searched import SAMPLES, Range
from estimators.spaces.base import Space
from estimators.spaces.bits import Bits
from estimators.spaces.distribution import Distribution


def coupled_bits(
    scores: Float[Tensor, "B D"], groups: int, size: int, sampler: Sampler
) -> Float[Tensor, "B {groups} {size} D"]:
    """Independent groups of n samples of q, coupled by a flat Dirichlet variable (d_1, …, d_n).

    A bit has its rarer value in the samples j with (1 − d_j)^(n − 1) < m (Dimitriev & Zhou 2021):
    in k given ones with probability max(k m^(1 / (n − 1)) − (k − 1), 0)^(n − 1). That is all of
    their law, by inclusion and exclusion, and they are drawn in turn, each given how many before it
    have that value. Two never have it both: they are an antithetic pair.
    """
    root = (-F.softplus(scores.double().abs()) / (size - 1)).exp()
    k = torch.arange(size + 1, device=scores.device).view(-1, 1, 1)
    # law[k]: of i + k given samples, the last k have the rarer value and no others.
    law = (k * root - (k - 1)).clamp(min=0) ** (size - 1)
    chance = root.new_empty(size, size, *root.shape)
    for i in range(size):
        before, after = law[:-1], law[1:]
        chance[i, : size - i] = torch.where(before > 0, after / before, 0).clamp(0, 1)
        law = before - after
    chance = chance.flatten(0, 1)
    rarer = root.new_empty(len(scores), groups, size, scores.shape[1])
    place = torch.zeros_like(rarer[:, :, 0], dtype=torch.int64).transpose(0, 1)
    for n in range(size):
        p = chance.gather(0, place).transpose(0, 1).flatten(1)
        rarer[:, :, n] = sampler.bernoulli(p, 1).view_as(rarer[:, :, n])
        place = place + torch.where(rarer[:, :, n] > 0, 1, size).transpose(0, 1)
    return torch.where(scores[:, None, None] > 0, 1 - rarer, rarer).to(scores.dtype)


def alike(z: Float[Tensor, "B S D"]) -> Float[Tensor, "B S"]:
    """The same weight for each sample of a row."""
    return torch.full_like(z[..., 0], 1 / z.shape[1])


def ratio(scores: Float[Tensor, "*batch"], size: int) -> Float[Tensor, "*batch"]:
    """ρ = θ (1 − θ) / P(z_i = 1, z'_i = 0) of any two of n coupled samples.

    It is (1 − m) / (1 − P(both) / m), where P(both) / m = max(2 − m^(−1 / (n − 1)), 0)^(n − 1) < ½
    is that the other one has the rarer value too: max(θ, 1 − θ) of a pair.
    """
    against = scores.abs()
    both = (2 - (F.softplus(against) / (size - 1)).exp()).clamp(min=0) ** (size - 1)
    return against.sigmoid() / (1 - both)


def opposite(
    scores: Float[Tensor, "B *D"], pair: Float[Tensor, "B P 2 *D"]
) -> Float[Tensor, "B P *D"]:
    """½ (z − z') max(θ, 1 − θ) of antithetic pairs: DisARM's factor of f(z) − f(z')."""
    return (pair[:, :, 0] - pair[:, :, 1]) * scores.abs().sigmoid()[:, None] / 2


class Pairs(Sampling):
    """The mean over independent pairs of (f(z) − f(z')) times a direction."""

    spaces: ClassVar[tuple[type[Space], ...]] = (Bits,)
    bias: ClassVar[Bias] = "unbiased"

    class Settings(SamplingSettings, frozen=True):
        pairs: Annotated[int, SAMPLES] = Field(
            1, ge=1, description="pairs of samples of z for each row, each of two decoder calls"
        )

    settings: Settings

    @property
    def calls_per_row(self) -> int:
        return 2 * self.settings.pairs

    @abstractmethod
    def direction(
        self, q: Distribution, proposal: Proposal, z: Shaped[Tensor, "B P 2 *z"]
    ) -> Float[Tensor, "B P *scores"]:
        """What the difference of the two costs of a pair counts for."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        pairs = self.settings.pairs
        f = evaluated.costs.view(-1, pairs, 2)
        direction = self.direction(q, proposal, proposal.extras["z"].unflatten(1, (pairs, 2)))
        gradient = ((f[..., 0] - f[..., 1])[..., None] * direction.flatten(2)).mean(dim=1)
        return Estimate(f.mean(dim=(1, 2)), surrogate_of(gradient.view_as(q.scores), q.scores))


@register
class DisARM(Pairs):
    """½ (f(z) − f(z')) (z_i − z'_i) max(θ_i, 1 − θ_i), z and z' antithetic.

    Also known as U2G. The factor is θ_i (1 − θ_i) / m: P(z_i = 1, z'_i = 0) is m, the most that it
    can be.
    """

    name = "disarm"
    citation = "Dong et al. 2020; Yin et al. 2020"

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        z = coupled_bits(q.scores.detach(), self.settings.pairs, 2, sampler).flatten(1, 2)
        return Proposal.rectangular(z, alike(z))

    def direction(
        self, q: Distribution, proposal: Proposal, z: Float[Tensor, "B P 2 D"]
    ) -> Float[Tensor, "B P D"]:
        return opposite(q.scores, z)


@register
class ARM(Pairs):
    """(f(z) − f(z')) (u_i − ½), with u_i uniform, z_i = 1[u_i > 1 − θ_i] and z'_i = 1[u_i < θ_i].

    z and z' are antithetic, and given both the expected estimate is DisARM's, whose variance is
    therefore never larger. u_i is σ of logistic noise.
    """

    name = "arm"
    citation = "Yin & Zhou 2019"

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        scores = q.scores.detach()
        noise = sampler.logistic(scores, self.settings.pairs)
        both = torch.stack([scores[:, None] + noise, scores[:, None] - noise], dim=2)
        z = (both > 0).to(scores.dtype).flatten(1, 2)
        return Proposal.rectangular(z, alike(z), noise=noise)

    def direction(
        self, q: Distribution, proposal: Proposal, z: Float[Tensor, "B P 2 D"]
    ) -> Float[Tensor, "B P D"]:
        return (proposal.extras["noise"] / 2).tanh() / 2


@register
class ARMS(Sampling):
    """ρ_i times the covariance of f(z) and z_i over n samples that are coupled with each other.

    With n = 2 this is DisARM; independent samples would have ρ = 1, and this would be RLOO.
    """

    name = "arms"
    citation = "Dimitriev & Zhou 2021"
    spaces: ClassVar[tuple[type[Space], ...]] = (Bits,)
    bias: ClassVar[Bias] = "unbiased"

    class Settings(SamplingSettings, frozen=True):
        samples: Annotated[int, Range(2, 16, log=True, costs=True)] = Field(
            4, ge=2, le=16, description="n, samples of z for each row"
        )

    settings: Settings

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        z = coupled_bits(q.scores.detach(), 1, self.settings.samples, sampler).squeeze(1)
        return Proposal.rectangular(z, alike(z))

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        f = evaluated.costs.view(-1, self.settings.samples)
        centred = f - f.mean(dim=1, keepdim=True)
        # Of z alone, where a bit is on in all samples, a rounding error of the mean would be left.
        score = proposal.extras["z"] - q.scores.sigmoid()[:, None]
        covariance = (centred[..., None] * score).sum(dim=1) / (self.settings.samples - 1)
        rho = ratio(q.scores, self.settings.samples)
        return Estimate(f.mean(dim=1), surrogate_of(rho * covariance, q.scores))
