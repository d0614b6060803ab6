"""Softmax of Gaussian scores: points within the simplex.

    z = softmax(s + σ N),   log q(z) = log N(s + σ N up to a constant) − Σ_c log z_c

Its entropy takes E[log Σ_c exp(x_c)] with x = s + σ N. A Gumbel variable G added to that has the
law of the largest of x_c + G_c, independent with the distribution function F(v − s_c), so that

    E[log Σ_c exp(x_c)] = E[max_c (x_c + G_c)] − E[G],   E[max] = b − ∫_{−∞}^b Π_c F(v − s_c) dv

with b above all that matters: one integral over v, of a product of one function of one number.
"""

import math
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from estimators.distributions.gaussian_sparsemax import log_ahead
from estimators.distributions.mixed import MixedDistribution
from estimators.distributions.mixed_bits import normal_nodes
from estimators.sampler import Sampler
from estimators.spaces.categoricals import Categoricals, IndependentCategoricals

V_STEP = 0.4
"""Of the trapezoid rule over v, whose integrand is analytic for imaginary parts below π / 2."""

X_STEP = 1 / 64
"""Of the table of log F, between whose entries lie cubics."""


class LogisticNormal(MixedDistribution):
    """Independent categorical variables with noise of one standard deviation on each score."""

    def __init__(self, space: Categoricals, scores: Float[Tensor, "B V C"], scale: float) -> None:
        super().__init__(scores, -space.variables * math.lgamma(space.categories))
        self.space, self.scale = space, scale

    def sample(self, sampler: Sampler, samples: int) -> Float[Tensor, "B {samples} V C"]:
        return (self.scores[:, None] + self.scale * sampler.normal(self.scores, samples)).softmax(3)

    def log_prob(self, z: Shaped[Tensor, "B S *z"]) -> Float[Tensor, "B S"]:
        point = self.space.point(z, self.scores.dtype)
        logs = point.clamp(min=torch.finfo(point.dtype).tiny).log()
        apart = logs - self.scores[:, None]
        spread = (apart - apart.mean(dim=3, keepdim=True)).square().sum(dim=3)
        each = self._log_volume_of_noise() - spread / (2 * self.scale**2) - logs.sum(dim=3)
        return each.sum(dim=2)

    def _log_volume_of_noise(self) -> float:
        """Of the differences of the noise, of which there is one less than there are categories."""
        size = self.space.categories
        return -(size - 1) / 2 * math.log(2 * math.pi * self.scale**2) - math.log(size) / 2

    def entropy(self) -> Float[Tensor, " B"]:
        size = self.space.categories
        of_noise = (size - 1) / 2 - self._log_volume_of_noise()
        slope = self.scores.sum(dim=2) - size * self._mean_log_sum()
        return (of_noise + slope).sum(dim=1)

    def _mean_log_sum(self) -> Float[Tensor, "B V"]:
        """E[log Σ_c exp(s_c + σ N)]."""
        low, table = _log_gumbel_table(self.scale)
        rise = min(self.scale**2 / 2, 8 * self.scale)
        top = 26 + rise + math.log(self.space.categories)
        steps = math.ceil((top + 7 * self.scale + 4) / V_STEP)
        node = top - V_STEP * torch.arange(steps + 1).to(self.scores)
        best = self.scores.detach().amax(dim=2)
        level = best[..., None] + node  # (B, V, nodes)
        log_f = _interpolated(level[:, :, None] - self.scores[..., None], low, table)
        product = log_f.sum(dim=2).exp()
        area = V_STEP * (product.sum(dim=2) - product[..., 0] / 2)
        return best + top - area - float(np.euler_gamma)

    def face_sizes(self, z: Float[Tensor, "B S V C"]) -> Float[Tensor, "B S V"]:
        return torch.full_like(z[..., 0], self.space.categories)

    def on_vertex(self) -> Float[Tensor, " B"]:
        return self.scores.new_zeros(len(self.scores))

    def rounded(self) -> IndependentCategoricals:
        return self.space.plain(log_ahead(self.scores, self.scale))


@cache
def _log_gumbel_table(scale: float) -> tuple[float, Float[Tensor, "4 X"]]:
    """log F of σ N + G from the least x on, as the four coefficients of a cubic for each step: F is
    exp(−e^(−x)) averaged over the noise, and its logarithm 0 beyond the table."""
    low, high = -(8 * scale + 6), 40 + min(scale**2 / 2, 8 * scale)
    x = low + X_STEP * torch.arange(math.ceil((high - low) / X_STEP) + 1).double()
    node, weight = (torch.from_numpy(part) for part in normal_nodes(math.pi / 2 / scale))
    at = (scale * node - x[:, None]).clamp(max=700)
    log_each = weight.log() - at.exp()
    value = log_each.logsumexp(dim=1)
    slope = X_STEP * ((log_each + at).logsumexp(dim=1) - value).exp()
    rise, start, end = value.diff(), slope[:-1], slope[1:]
    cubic = [value[:-1], start, 3 * rise - 2 * start - end, start + end - 2 * rise]
    return low, torch.stack(cubic)


def _interpolated(
    x: Float[Tensor, "*any"], low: float, table: Float[Tensor, "4 X"]
) -> Float[Tensor, "*any"]:
    """The table's function, constant on either side of it."""
    place = ((x - low) / X_STEP).clamp(0, table.shape[1] - 1e-3)
    step = place.detach().floor()
    share, number = place - step, step.long()
    a, b, c, d = (part[number] for part in table.to(x))
    return a + share * (b + share * (c + share * d))
