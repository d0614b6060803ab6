"""Quadrature over all that a mixed bit can be: 0, 1 and what lies between."""

import math

import torch
from torch import Tensor

from estimators.distributions.mixed import MixedDistribution
from estimators.distributions.mixed_bits import (
    KumaraswamyBits,
    LogisticNormalBits,
    SpikeExponentialBits,
)


def faces(q: MixedDistribution, step: float = 0.02, least: float = -700) -> tuple[Tensor, Tensor]:
    """z (M,), of which the first two are 0 and 1, and their weights, (M,), in the measure that a
    bit of q has its density in: the trapezoid rule over log-odds."""
    odds = torch.arange(least, 36, step, dtype=torch.float64)
    between = odds.sigmoid()
    weight = step * between * (-odds).sigmoid()
    ends = torch.ones(2, dtype=torch.float64)
    if isinstance(q, SpikeExponentialBits):
        ends[1] = 0
        weight = weight * q.sharpness * (q.sharpness * between).exp() / math.expm1(q.sharpness)
    elif isinstance(q, LogisticNormalBits | KumaraswamyBits):
        ends[:] = 0
    z = torch.cat([torch.tensor([0.0, 1.0], dtype=torch.float64), between])
    return z, torch.cat([ends, weight])
