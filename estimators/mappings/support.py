"""Support and derivative from one decision.

Probabilities sum to one, so that their derivatives sum to zero over all that have one. A sum over
the assignments of positive probability keeps that, and with it its indifference to the level of the
costs, only where an assignment has a derivative exactly if its probability is positive.
"""

from typing import Any

import entmax
import torch
from jaxtyping import Float
from torch import Tensor

from estimators.mappings.finite import mapping


class _Sparsemax(torch.autograd.Function):
    """The library's, with the derivative of the support that it gives.

    Its own divides by the size of the support before rounding, which is another one where a score
    is on the threshold.
    """

    @staticmethod
    def forward(ctx: Any, scores: Float[Tensor, "*B M"]) -> Float[Tensor, "*B M"]:
        found: Tensor = entmax.sparsemax(scores, dim=-1)
        ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(ctx: Any, slope: Float[Tensor, "*B M"]) -> Float[Tensor, "*B M"]:
        (found,) = ctx.saved_tensors
        support = (found > 0).to(slope.dtype)
        inside = slope * support
        mean = inside.sum(dim=-1, keepdim=True) / support.sum(dim=-1, keepdim=True)
        return inside - mean * support


@mapping
def sparsemax(scores: Float[Tensor, "*B M"]) -> Float[Tensor, "*B M"]:
    """argmin_p ‖p − s‖² over the simplex, along the last dimension (Martins & Astudillo 2016).

    Raises:
        TypeError: the scores are no floating-point numbers.
    """
    found: Tensor = _Sparsemax.apply(scores)  # type: ignore[no-untyped-call]
    return found


def least(dtype: torch.dtype) -> float:
    """The probability of an assignment that has a derivative and, but for that, none: the least
    normal number."""
    return torch.finfo(dtype).tiny


def narrowed(probabilities: Float[Tensor, "B M"], dtype: torch.dtype) -> Float[Tensor, "B M"]:
    """Probabilities in a narrower dtype, where those that are positive stay so."""
    if probabilities.dtype == dtype:
        return probabilities
    found, positive = probabilities.to(dtype), probabilities.detach() > 0
    return found + least(dtype) * (positive & (found.detach() < least(dtype))).to(dtype)
