"""Binary pixels: drawn from grey levels, and their likelihood given their log-odds.

    −log p(x) = Σ_pixels log(1 + exp(−s l)),   s = 2x − 1

The library's cross-entropy takes targets between 0 and 1 as well, and for that goes over the pixels
more often, forward and backward.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LINEAR_FROM = 40.0
"""Where log(1 + exp(y)) is y to the last digit, of float64 too."""


def binarised(grey: Float[Tensor, "N P"], generator: torch.Generator) -> Float[Tensor, "N P"]:
    """Pixels that are 1 with their grey level in [0, 1] as probability, else 0."""
    # 16 random bits for a pixel, four pixels' in an integer: the library's uniform_ takes three
    # times as long, its bernoulli eight. No probability is off by more than 2⁻¹⁷.
    integers = torch.empty(-(-grey.numel() // 4), dtype=torch.int64, device=grey.device)
    integers.random_(-(2**63), None, generator=generator)
    bits = integers.view(torch.int16)[: grey.numel()].view_as(grey)
    uniform = bits.to(grey.dtype).add_(2**15 + 0.5).div_(2**16)
    return uniform.lt_(grey)


def plain_binary_nll(logits: Float[Tensor, "N P"], x: Float[Tensor, "N P"]) -> Float[Tensor, " N"]:
    """The same as `binary_nll`, by the library."""
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(dim=1)


def binary_nll(logits: Float[Tensor, "N P"], x: Float[Tensor, "N P"]) -> Float[Tensor, " N"]:
    """−log p(x) of pixels that are 0 or 1, in nats.

    Args:
        logits: l, their log-odds.
        x: zeros and ones, of the same dtype.
    Returns:
        Differentiable once in the log-odds.
    """
    nll: Tensor = _BinaryNLL.apply(logits, x)  # type: ignore[no-untyped-call]
    return nll


class _BinaryNLL(torch.autograd.Function):
    """The slope for the log-odds is σ(l) − x."""

    @staticmethod
    def forward(
        ctx: Any, logits: Float[Tensor, "N P"], x: Float[Tensor, "N P"]
    ) -> Float[Tensor, " N"]:
        ctx.save_for_backward(logits, x)
        against = torch.addcmul(logits, x, logits, value=-2)  # −s l
        return F.softplus(against, threshold=LINEAR_FROM).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Float[Tensor, " N"]) -> tuple[Float[Tensor, "N P"], None]:
        logits, x = ctx.saved_tensors
        return logits.sigmoid().sub_(x).mul_(slope[:, None]), None
