"""Bias, variance and direction of a gradient estimate, from block means and the exact gradient.

Draws come in R blocks of n; with m_a the mean of block a, e the exact gradient and d_a = m_a − e,

    ‖bias‖² ≈ mean of ⟨d_a, d_b⟩ over a ≠ b         unbiased: the noise of two blocks is independent
    tr Var  ≈ n · (mean of ‖d_a‖² − ‖bias‖²)        of a single estimate
    cos     ≈ ⟨m, e⟩ / (‖e‖ · √(mean of ⟨m_a, m_b⟩ over a ≠ b))

All are functions of the R × R matrix of products, and the jackknife over blocks gives their
standard errors. Blocks can be joined in pairs, so that memory does not grow with draws.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

BLOCKS = 32
"""R, unless a caller has reason for another number."""

Z = 2.04
"""Half the width of a 95% interval in standard errors: Student's t for R − 1 degrees of freedom."""


class Quality(NamedTuple):
    """What is known of a gradient estimate, for one group of parameters. Intervals are of 95%."""

    exact_norm: float
    """‖e‖."""
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
    def relative_width(self) -> float:
        """Half the width of the bias's interval, as a share of the exact norm."""
        return (self.bias_high - self.bias_low) / (2 * max(self.exact_norm, 1e-300))


def quality(means: Tensor, exact: Tensor, draws: int) -> Quality:
    """Statistics of an estimate.

    Args:
        means: (R, P), the mean estimate of each block; R ≥ 3.
        exact: (P,), the gradient that it is an estimate of.
        draws: n, estimates in a block.
    """
    off = means - exact
    products = (off @ off.T).double()
    along = (off @ exact).double()
    square = float(exact.double().square().sum())
    whole = _values(products, along, square, draws)
    kept = ~torch.eye(len(means), dtype=torch.bool, device=means.device)
    left_out = torch.stack(
        [_values(products[keep][:, keep], along[keep], square, draws) for keep in kept]
    )
    errors = ((len(means) - 1) * left_out.var(dim=0, correction=0)).sqrt()
    (bias, variance, cosine), (bias_error, variance_error, cosine_error) = (
        whole.tolist(),
        errors.tolist(),
    )
    return Quality(
        exact_norm=math.sqrt(square),
        bias=math.sqrt(max(0.0, bias)),
        bias_low=math.sqrt(max(0.0, bias - Z * bias_error)),
        # Noise can bring the square far below zero: that is no reason for a tighter bound.
        bias_high=math.sqrt(max(0.0, bias) + Z * bias_error),
        variance=max(0.0, variance),
        variance_error=variance_error,
        cosine=cosine,
        cosine_error=cosine_error,
    )


def _values(products: Tensor, along: Tensor, square: float, draws: int) -> Tensor:
    """‖bias‖², trace of the variance, and cosine, (3,), from the products of some blocks."""
    count = len(products)
    diagonal = products.diagonal().mean()
    bias = (products.sum() - products.diagonal().sum()) / (count * (count - 1))
    variance = draws * (diagonal - bias)
    towards = along.mean() + square  # ⟨m, e⟩
    mean_square = bias + 2 * along.mean() + square  # ⟨m_a, m_b⟩ over a ≠ b
    cosine = towards / (square * mean_square).sqrt()  # NaN below zero: too much noise to say
    return torch.stack([bias, variance, cosine])


def joined(means: Tensor) -> Tensor:
    """Half as many blocks (R / 2, P) of twice the draws."""
    return (means[0::2] + means[1::2]) / 2
