"""Maximisation oracles: the structure of highest score, for `sparsemap`.

An oracle is a function from scores to indicator vectors of the same dtype. One for a new structure
is a few lines: see `best_bits_within`.
"""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor

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
        rows = torch.arange(len(scores), device=scores.device)
        alone = scores[:, : length * states].unflatten(1, (length, states))
        links = scores[:, length * states :].unflatten(1, (length - 1, states, states))
        value, came_from = alone[:, 0], []
        for place in range(1, length):
            value, origin = (value[:, :, None] + links[:, place - 1]).max(dim=1)
            value = value + alone[:, place]
            came_from.append(origin)
        path = [value.argmax(dim=1)]
        for origin in reversed(came_from):
            path.append(origin[rows, path[-1]])
        path.reverse()
        chosen = torch.zeros_like(scores)
        for place, state in enumerate(path):
            chosen[rows, place * states + state] = 1
        for link, (before, after) in enumerate(itertools.pairwise(path)):
            chosen[rows, length * states + (link * states + before) * states + after] = 1
        return chosen

    return best
