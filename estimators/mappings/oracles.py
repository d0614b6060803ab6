"""Maximisation oracles: the structure of highest score, for `sparsemap`.

An oracle is a function from scores to indicator vectors of the same dtype. One for a new structure
is a few lines: see `best_bits_within`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.mappings.chains import best_chains, chain_points
from estimators.mappings.structures import Oracle


def best_bits(scores: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """Any bits: those of positive score."""
    return (scores > 0).to(scores.dtype)


def best_bits_within(budget: int) -> Oracle:
    """At most `budget` bits: the best of those of positive score."""

    def best(scores: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        ranked = scores.topk(min(budget, scores.shape[1]), dim=1)
        return torch.zeros_like(scores).scatter(1, ranked.indices, (ranked.values > 0).to(scores))

    return best


def best_chain(length: int, states: int) -> Oracle:
    """A state for each of `length` places, scored alone and with its neighbour (Viterbi).

    The D = length · states + (length − 1) · states² scores are those of the states, place by place,
    then those of the transitions, link by link, row-major (from, to).
    """

    def best(scores: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        return chain_points(best_chains(scores, length, states), states, scores.dtype)

    return best
