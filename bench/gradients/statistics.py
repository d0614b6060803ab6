"""Bias, variance and direction of a gradient estimate, against the exact gradient.

N draws come in R blocks of n. With d a draw less the exact gradient e, d̄ their mean and m = e + d̄,

    tr Var  ≈ Σ ‖d − d̄‖² / (N − 1)      of a single estimate
    ‖bias‖² ≈ ‖d̄‖² − tr Var / N         unbiased: what noise adds to the norm is taken off
    cos     ≈ ⟨m, e⟩ / (‖e‖ · √(‖m‖² − tr Var / N))

Of a block its mean is kept and the sum of squares around it (Welford 1962), from which all of these
follow, and the jackknife over blocks gives their standard errors. When the blocks are full they are
joined in pairs, so that memory does not grow with draws.

The jackknife tells the noise of ‖d̄‖² at d̄, which is too little where noise has made d̄ shorter than
the bias: in one dimension, with a bias of two standard errors, the bias is above its interval in
15% of cases. The upper limit is therefore also that of the longest bias under which ‖d̄‖² is not
too short. With C the covariance of d̄, ‖d̄‖² is about

    tr C + c (χ²(k, ‖bias‖² / c) − k),   c = tr C³ / tr C²,   k = tr C² / c²

which has its three moments without a bias (Imhof 1961), and is exact where the noise is of one
size in all of its directions. The jackknife goes on to count where that is not so.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import helmert
from scipy.special import chndtrinc, ndtr
from torch import Tensor

from analysis.gradient_rows import Z, norm_interval

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
        square = float(self._exact.square().sum())
        products, along = (off @ off.T).cpu(), (off @ self._exact).cpu()
        found = estimates(products, along, within.cpu(), square, self._size)
        (bias, bias_error), (variance, variance_error), (cosine, cosine_error) = found.tolist()
        trace = torch.tensor(variance / (len(off) * self._size), dtype=off.dtype)
        room = float(room_above(products, found[0, 0], trace))
        below = Z * bias_error
        norm, low, high = norm_interval(bias, below, above=np.fmax(below, room))
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


def estimates(products: Tensor, along: Tensor, within: Tensor, square: float, size: int) -> Tensor:
    """‖bias‖², trace of the variance, and cosine, each with its standard error, (..., 3, 2).

    Args:
        products: (..., R, R), of the blocks' d̄ with each other.
        along: (..., R), of these with e.
        within: (..., R), sums of squares in the blocks.
        square: ‖e‖².
        size: n.
    """
    blocks = products.shape[-1]
    rows, squares = products.sum(dim=-1), products.diagonal(dim1=-2, dim2=-1)
    sums = torch.stack([rows, squares, along, within]).sum(dim=-1, keepdim=True)
    own = torch.stack([2 * rows - squares, squares, along, within])
    whole = _values(sums, blocks, square, size)
    left_out = _values(sums - own, blocks - 1, square, size)
    errors = ((blocks - 1) * left_out.var(dim=-1, correction=0)).sqrt()
    return torch.stack([whole.squeeze(-1), errors], dim=-1).movedim(0, -2)


def _values(sums: Tensor, blocks: int, square: float, size: int) -> Tensor:
    """‖bias‖², trace of the variance, and cosine, (3, ...), of so many blocks.

    Args:
        sums: (4, ...), over these blocks: of their products, and of them the squares; of the
            products with e; of the squares within.
    """
    products, squares, along, within = sums
    of_mean = products / blocks**2  # ‖d̄‖²
    between = size * (squares - blocks * of_mean)
    variance = (within + between).clamp(min=0) / (blocks * size - 1)
    bias = of_mean - variance / (blocks * size)
    towards = along / blocks + square  # ⟨m, e⟩
    mean_square = bias + 2 * along / blocks + square
    cosine = towards / (square * mean_square).sqrt()  # NaN below zero: too much noise to say
    return torch.stack([bias, variance, cosine])


def room_above(products: Tensor, bias: Tensor, trace: Tensor) -> Tensor:
    """How far ‖bias‖² may lie above its estimate, or above zero if that is below, (...).

    NaN where there is no noise, or so little that the jackknife says the same.

    Args:
        products: (..., R, R), of the blocks' d̄ with each other.
        bias: (...), the estimate of ‖bias‖².
        trace: (...), tr C.
    """
    blocks = products.shape[-1]
    contrasts = torch.from_numpy(helmert(blocks)).to(products)  # orthonormal: the bias cancels
    noise = contrasts @ products @ contrasts.T / blocks  # of independent d̄ without bias
    noise = noise - torch.diag_embed(noise.diagonal(dim1=-2, dim2=-1))
    pairs = (blocks - 1) * (blocks - 2)
    second = (noise.square().sum(dim=(-2, -1)) / pairs).minimum(trace**2)
    third = (noise @ noise * noise).sum(dim=(-2, -1)) / (pairs * max(1, blocks - 3))
    c = (third / second).maximum(second / trace).minimum(second.sqrt())
    k, found = second / c**2, bias.clamp(min=0)
    longest = torch.as_tensor(chndtrinc((k + found / c).numpy(), k.numpy(), ndtr(-Z)))
    return c * longest - found
