"""Mixed bits: z = link(score + noise) for each, with atoms where the link is cut off.

    P(0) = F(low − score),   P(1) = 1 − F(high − score),   density f(level − score) / link'(level)

and the entropy −P(0) log P(0) − P(1) log P(1) − ∫ f log(f / link') over the levels between.
"""

import math
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from estimators.distributions.levels import (
    Gumbel,
    Kumaraswamy,
    Law,
    Line,
    Link,
    Normal,
    Sigmoid,
    log_minus,
)
from estimators.distributions.mixed import MixedDistribution
from estimators.sampler import Sampler
from estimators.spaces.bits import BernoulliBits, Bits

DIGITS = 1e-13
"""What the rate of convergence says that the error of a quadrature is: it is below 1e-8 for all
settings that estimators allow."""


class MixedBits(MixedDistribution):
    """Independent bits, each with noise of its own."""

    def __init__(self, space: Bits, scores: Float[Tensor, "B D"], law: Law, link: Link) -> None:
        super().__init__(scores, space.size * math.log(3 if link.has_atoms else 1))
        self.space, self.law, self.link = space, law, link

    def sample(self, sampler: Sampler, samples: int) -> Float[Tensor, "B {samples} D"]:
        noise = self.law.sample(self.scores, sampler, samples)
        return self.link.z(self.scores[:, None] + noise)

    def log_atoms(self) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """log P(0) and log P(1), where there are atoms."""
        low, high = self.link.low - self.scores, self.link.high - self.scores
        return self.law.log_below(low), self.law.log_above(high)

    def log_prob(self, z: Float[Tensor, "B S D"]) -> Float[Tensor, "B S"]:
        least = torch.finfo(z.dtype)
        level = self.link.level(z.clamp(least.tiny, 1 - least.eps / 2))
        log_slope = self.link.log_slope(level)
        found = self.law.log_density(level - self.scores[:, None]) - log_slope
        if self.link.has_atoms:
            zero, one = (log_p[:, None] for log_p in self.log_atoms())
            found = torch.where(z <= 0, zero, torch.where(z >= 1, one, found))
        return found.sum(dim=2)

    def entropy(self) -> Float[Tensor, " B"]:
        found = self.entropy_between()
        if self.link.has_atoms:
            for log_p in self.log_atoms():
                found = found - log_p.exp() * log_p
        return found.sum(dim=1)

    def entropy_between(self) -> Float[Tensor, "B D"]:
        """−∫ f log(f / link') over the levels where z is within (0, 1), by Gauss-Legendre
        quadrature: the integrand is analytic."""
        rule = _legendre(self.law, self.link)
        level, weight = (torch.from_numpy(part).to(self.scores) for part in rule)
        log_f = self.law.log_density(level - self.scores[:, :, None])
        return (log_f.exp() * (self.link.log_slope(level) - log_f)) @ weight

    def face_sizes(self, z: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        if not self.link.has_atoms:
            return torch.full_like(z, 2)
        return torch.where((z > 0) & (z < 1), 2.0, 1.0).to(z.dtype)

    def on_vertex(self) -> Float[Tensor, " B"]:
        if not self.link.has_atoms:
            return self.scores.new_zeros(len(self.scores))
        zero, one = self.log_atoms()
        return (zero.exp() + one.exp()).mean(dim=1)

    def rounded(self) -> BernoulliBits:
        at = self.link.half - self.scores
        return self.space.plain(self.law.log_above(at) - self.law.log_below(at))


@cache
def _legendre(law: Law, link: Link) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights between the levels of 0 and 1. The error falls as ρ^(−2n), where ρ is that
    of the largest ellipse around the levels in which the integrand is analytic."""
    middle, half = (link.high + link.low) / 2, (link.high - link.low) / 2
    height = min(law.strip, link.strip) / half
    rho = height + math.sqrt(1 + height**2)
    nodes, weights = np.polynomial.legendre.leggauss(
        math.ceil(-math.log(DIGITS) / (2 * math.log(rho)))
    )
    return middle + half * nodes, half * weights


class ClippedGaussianBits(MixedBits):
    """A Gaussian clipped to [0, 1]: (1 + score + √2 scale · noise) / 2, the first of the two
    numbers of sparsemax(N(score, scale²), N(0, scale²))."""

    law: Normal

    def __init__(self, space: Bits, scores: Float[Tensor, "B D"], scale: float) -> None:
        super().__init__(space, scores, Normal(math.sqrt(2) * scale), Line())

    def entropy_between(self) -> Float[Tensor, "B D"]:
        std = self.law.std / 2  # of z
        low, high = ((end - self.scores) / self.law.std for end in (self.link.low, self.link.high))
        between = torch.special.ndtr(high) - torch.special.ndtr(low)
        moment = low * (-low.square() / 2).exp() - high * (-high.square() / 2).exp()
        log_std = math.log(std * math.sqrt(2 * math.pi))
        return between * (log_std + 0.5) + moment / (2 * math.sqrt(2 * math.pi))


class LogisticNormalBits(MixedBits):
    """σ(score + √2 scale · noise), without atoms: the first number of the softmax."""

    law: Normal

    def __init__(self, space: Bits, scores: Float[Tensor, "B D"], scale: float) -> None:
        super().__init__(space, scores, Normal(math.sqrt(2) * scale), Sigmoid(0.0))

    def entropy_between(self) -> Float[Tensor, "B D"]:
        """That of the level, and the mean log-slope of the link."""
        nodes, weights = normal_nodes(math.pi / self.law.std)
        noise = torch.from_numpy(self.law.std * nodes).to(self.scores)
        log_slope = self.link.log_slope(self.scores[:, :, None] + noise)
        of_level = math.log(self.law.std) + math.log(2 * math.pi * math.e) / 2
        return of_level + log_slope @ torch.from_numpy(weights).to(self.scores)


def normal_nodes(strip: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for the mean over a standard normal variable of a function that is analytic
    where the imaginary part is smaller than `strip`, and grows slowly: the trapezoid rule with a
    step h errs by exp(d²/2 − 2πd/h) for every d up to that."""
    accuracy = -math.log(DIGITS)
    d = min(strip, math.sqrt(2 * accuracy))
    step = 2 * math.pi * d / (accuracy + d**2 / 2)
    count = math.ceil(7.5 / step)
    nodes = step * np.arange(-count, count + 1)
    return nodes, step * np.exp(-(nodes**2) / 2) / math.sqrt(2 * math.pi)


class KumaraswamyBits(MixedBits):
    """1 − (1 − u)^(1/b) to the power of 1/a, with a = e^score and without atoms."""

    law: Kumaraswamy

    def __init__(self, space: Bits, scores: Float[Tensor, "B D"], b: float) -> None:
        super().__init__(space, scores, Kumaraswamy(b), Gumbel(0.0))

    def entropy_between(self) -> Float[Tensor, "B D"]:
        b = self.law.b
        harmonic = float(torch.digamma(torch.tensor(b + 1).double())) + np.euler_gamma
        return (1 - 1 / b) + (1 - (-self.scores).exp()) * harmonic - self.scores - math.log(b)


class SpikeExponentialBits(MixedDistribution):
    """0, or a number in (0, 1) with the density β e^(β z) / (e^β − 1), of which σ(score) is the
    probability (Rolfe 2017).

    The prior smooths uniform bits alike: in its measure, an atom at 0 and this density, entropy and
    density of q are those of the Bernoulli variable that says whether z is 0.
    """

    def __init__(self, space: Bits, scores: Float[Tensor, "B D"], sharpness: float) -> None:
        super().__init__(scores, space.log_assignments)
        self.space, self.sharpness = space, sharpness
        self._spike = space.plain(scores)

    def sample(self, sampler: Sampler, samples: int) -> Float[Tensor, "B {samples} D"]:
        """log(1 + w (e^β − 1)) / β, with w = 1 − (1 − u) / σ(score) where it is positive."""
        noise = sampler.logistic(self.scores, samples)
        log_ratio = F.logsigmoid(-noise) - F.logsigmoid(self.scores)[:, None]
        share = -log_ratio.clamp(max=0).expm1()
        return (share * math.expm1(self.sharpness)).log1p() / self.sharpness

    def log_prob(self, z: Float[Tensor, "B S D"]) -> Float[Tensor, "B S"]:
        return self._spike.log_prob((z > 0).to(z.dtype))

    def entropy(self) -> Float[Tensor, " B"]:
        return self._spike.entropy()

    def face_sizes(self, z: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        return torch.where(z > 0, 2.0, 1.0).to(z.dtype)

    def on_vertex(self) -> Float[Tensor, " B"]:
        return (-self.scores).sigmoid().mean(dim=1)

    def rounded(self) -> BernoulliBits:
        """P(z > ½) = σ(score) σ(β / 2)."""
        log_p = F.logsigmoid(self.scores) - math.log1p(math.exp(-self.sharpness / 2))
        return self.space.plain(log_p - log_minus(-log_p))
