"""Scores of what can't be, by which structures of several sizes share a batch.

A row whose structure is smaller has, for what lies past its end, one choice with the score 0; all
others have a score that no sum of scores makes up for, and the probability 0. Its q is that of the
smaller structure, and nothing else has to know of sizes.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

FORBIDDEN = -(2.0**30)
"""Far below any sum of scores, and exact in every dtype."""


def forbidden(scores: Float[Tensor, "*batch"]) -> Bool[Tensor, "*batch"]:
    """Which entries forbid a choice: noise or a temperature leaves them such."""
    return scores < FORBIDDEN / 2


def allowed(scores: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Scores with 0 for those of what can't be: what a norm of scores may take."""
    return scores.masked_fill(forbidden(scores), 0)


def marked(
    vectors: Float[Tensor, "*batch"], scores: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch"]:
    """Vectors that say what can't be as scores do, for the `nearest` point and what is
    `centred`."""
    return torch.where(forbidden(scores), scores, vectors)
