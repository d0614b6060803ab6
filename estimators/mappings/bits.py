"""Bit-vectors ordered by a linear score: all of them, the k best, sparsemax over the k best.

The score of z ∈ {0,1}^D is ⟨η, z⟩, with η the scores of the bits.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from estimators.mappings.finite import check_finite, mapping
from estimators.mappings.support import sparsemax

MAX_ENUMERATED_BITS = 16


class TopKSparsemax(NamedTuple):
    """Sparsemax restricted to the k best bit-vectors of every row."""

    vertices: Float[Tensor, "B k D"]
    """Zeros and ones, best first, distinct within a row."""
    probabilities: Float[Tensor, "B k"]
    """Differentiable in the scores; zero outside the support."""
    exact: Bool[Tensor, " B"]
    """True where the result is the sparsemax over all 2^D vectors. One of the k with probability
    zero certifies it: every vector left out scores no higher than that one."""


def all_bit_vectors(size: int, like: Float[Tensor, "..."]) -> Float[Tensor, "2**{size} {size}"]:
    """All bit-vectors of a size in counting order, with the dtype and device of `like`.

    Raises:
        ValueError: `size` is above `MAX_ENUMERATED_BITS`.
    """
    if size > MAX_ENUMERATED_BITS:
        raise ValueError(f"2^{size} bit-vectors are too many: at most 2^{MAX_ENUMERATED_BITS}")
    codes = torch.arange(2**size, device=like.device)
    places = torch.arange(size - 1, -1, -1, device=like.device)
    return (codes[:, None] >> places & 1).to(like.dtype)


@mapping
def top_bit_vectors(scores: Float[Tensor, "B D"], k: int) -> Float[Tensor, "B {k} D"]:
    """The k bit-vectors of highest score for every row, best first.

    The best sets each bit with a positive score. Any other is the best with a set F of bits
    flipped, at a loss of Σ_{i∈F} |η_i|, so the k smallest subset sums of |η| are wanted. They
    are grown bit by bit from the smallest |η|, keeping k after each; a flip of the i-th smallest
    has i cheaper subsets (none, and the i − 1 single flips before it), so k − 1 bits suffice.

    Args:
        scores: of any floating dtype.
        k: 1 to 2^D.
    Returns:
        Zeros and ones in the dtype of `scores`, without gradient.
    Raises:
        TypeError: the scores are no floating-point numbers.
        ValueError: k is out of range, or a score is not finite.
    """
    rows, size = scores.shape
    if k < 1 or (size < 63 and k > 2**size):
        raise ValueError(f"k = {k} bit-vectors were asked for, of 2^{size}: take 1 to 2^{size}")
    check_finite(scores)
    scores = scores.detach()
    losses, order = scores.abs().sort(dim=1)
    flippable = min(size, k - 1)
    total = scores.new_zeros(rows, 1)
    flips = torch.zeros(rows, 1, flippable, dtype=torch.bool, device=scores.device)
    for bit in range(flippable):
        flipped = flips.clone()
        flipped[:, :, bit] = True
        total = torch.cat([total, total + losses[:, bit, None]], dim=1)
        flips = torch.cat([flips, flipped], dim=1)
        kept = min(k, total.shape[1])
        total, keep = total.topk(kept, dim=1, largest=False, sorted=True)
        flips = flips.gather(1, keep[:, :, None].expand(-1, -1, flippable))
    best = (scores > 0)[:, None, :].expand(-1, k, -1)
    places = order[:, None, :flippable].expand(-1, k, -1)
    return best.scatter(2, places, best.gather(2, places) ^ flips).to(scores.dtype)


@mapping
def topk_sparsemax(scores: Float[Tensor, "B D"], k: int) -> TopKSparsemax:
    """Top-k sparsemax (Correia et al. 2020, section 4.1): sparsemax over the k best bit-vectors.

    Args:
        scores: of any floating dtype.
        k: 1 to 2^D; with k = 2^D this is the full sparsemax.
    Raises:
        TypeError: the scores are no floating-point numbers.
        ValueError: k is out of range, or a score is not finite.
    """
    vertices = top_bit_vectors(scores, k)
    # Sparsemax ignores what all have in common, next to which a difference would be rounded away.
    differences = torch.einsum("bkd,bd->bk", vertices - vertices[:, :1], scores)
    probabilities = sparsemax(differences)
    everything = k == 2 ** scores.shape[1]
    exact = (probabilities == 0).any(dim=1) | everything
    return TopKSparsemax(vertices, probabilities, exact)
