"""Bias, variance and direction of a gradient estimate, against the exact gradient.

N draws come in R blocks of n. With d a draw less the exact gradient e, d̄ their mean and m = e + d̄,

    tr Var  ≈ Σ ‖d − d̄‖² / (N − 1)      of a single estimate
    ‖bias‖² ≈ ‖d̄‖² − tr Var / N         unbiased: what noise adds to the norm is taken off
    cos     ≈ ⟨m, e⟩ / (‖e‖ · √(‖m‖² − tr Var / N))

Of a block its mean is kept and the sum of squares around it (Welford 1962), from which all of these
follow, and the jackknife over blocks gives their standard errors. When the blocks are full they are
joined in pairs, so that memory does not grow with draws.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from analysis.gradient_rows import norm_interval

BLOCKS = 32
"""R, when the blocks are full."""


class Quality(NamedTuple):
    """What is known of a gradient estimate, for one group of parameters. Intervals are of 95%."""

    exact_norm: float
    """‖e‖."""
    bias_square: float
    """The estimate of ‖bias‖², below zero at times where there is none."""
    bias_square_error: float
    """Its standard error."""
    bias: float
    """‖bias‖, 0 where its square is estimated below zero."""
    bias_low: float
    bias_high: float
    """What the bias is below: the resolution, where the estimate has none."""
    variance: float
    """Trace of the covariance of a single estimate."""
    variance_error: float
    """Standard error of the variance."""
    cosine: float
    """Between the mean estimate and the exact gradient; NaN where one is zero, or all noise."""
    cosine_error: float

    @property
    def mean_squared_error(self) -> float:
        """Of a single estimate: ‖bias‖² + tr Var."""
        return self.bias**2 + self.variance

    @property
    def signal_to_noise(self) -> float:
        """‖e‖ / √tr Var, infinite without noise."""
        return self.exact_norm / math.sqrt(self.variance) if self.variance else math.inf

    @property
    def relative_width(self) -> float:
        """Half the width of the bias's interval, as a share of the exact norm."""
        return (self.bias_high - self.bias_low) / (2 * max(self.exact_norm, 1e-300))


class Draws:
    """Draws of an estimate, as they come.

    Args:
        exact: (P,), the gradient that they are estimates of.
    """

    def __init__(self, exact: Tensor) -> None:
        self._exact = exact
        self._off = exact.new_zeros(BLOCKS, len(exact))
        """(R, P): means of the blocks, less the exact gradient."""
        self._within = exact.new_zeros(BLOCKS)
        """(R,): sums of squares around these means."""
        self._full, self._size, self._begun = 0, 1, 0

    def add(self, draw: Tensor) -> None:
        """Take in a draw (P,)."""
        if self.full:
            self._join()
        mean, off = self._off[self._full], draw - self._exact
        if not self._begun:
            mean.zero_()
            self._within[self._full] = 0
        self._begun += 1
        step = off - mean
        mean += step / self._begun
        self._within[self._full] += step @ (off - mean)
        if self._begun == self._size:
            self._full, self._begun = self._full + 1, 0

    @property
    def full(self) -> bool:
        """Whether every draw is in a full block, of which there are R."""
        return self._full == BLOCKS

    def _join(self) -> None:
        """Make half as many blocks of twice the size."""
        half = BLOCKS // 2
        first, second = self._off[0::2], self._off[1::2]
        apart = (first - second).square().sum(dim=1) * self._size / 2
        self._within[:half] = self._within[0::2] + self._within[1::2] + apart
        self._off[:half] = (first + second) / 2
        self._full, self._size = half, 2 * self._size

    def quality(self) -> Quality:
        """Statistics of the draws in full blocks, of which there must be three."""
        off, within = self._off[: self._full], self._within[: self._full]
        products, along = off @ off.T, off @ self._exact
        square = float(self._exact.square().sum())
        whole = _values(products, along, within, square, self._size)
        kept = ~torch.eye(len(off), dtype=torch.bool, device=off.device)
        left_out = torch.stack(
            [
                _values(products[keep][:, keep], along[keep], within[keep], square, self._size)
                for keep in kept
            ]
        )
        errors = ((len(off) - 1) * left_out.var(dim=0, correction=0)).sqrt()
        (bias, variance, cosine), (bias_error, variance_error, cosine_error) = (
            whole.tolist(),
            errors.tolist(),
        )
        norm, low, high = norm_interval(bias, bias_error)
        return Quality(
            exact_norm=math.sqrt(square),
            bias_square=bias,
            bias_square_error=bias_error,
            bias=norm,
            bias_low=low,
            bias_high=high,
            variance=variance,
            variance_error=variance_error,
            cosine=cosine,
            cosine_error=cosine_error,
        )


def _values(products: Tensor, along: Tensor, within: Tensor, square: float, size: int) -> Tensor:
    """‖bias‖², trace of the variance, and cosine, (3,), of some blocks.

    Args:
        products: (R, R), of the blocks' d̄ with each other.
        along: (R,), of these with e.
        within: (R,), sums of squares in the blocks.
        square: ‖e‖².
        size: n.
    """
    count = len(products)
    of_mean = products.mean()  # ‖d̄‖²
    between = size * (products.diagonal().sum() - count * of_mean)
    variance = (within.sum() + between).clamp(min=0) / (count * size - 1)
    bias = of_mean - variance / (count * size)
    towards = along.mean() + square  # ⟨m, e⟩
    mean_square = bias + 2 * along.mean() + square
    cosine = towards / (square * mean_square).sqrt()  # NaN below zero: too much noise to say
    return torch.stack([bias, variance, cosine])
