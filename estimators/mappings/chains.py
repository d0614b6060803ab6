"""Chains of T states out of S each: the best of them, and sparsemax over these.

A chain is (T,) int64. Its scores are one vector of P = T S + (T − 1) S² entries: those of the
states place by place, then those of the transitions link by link, row-major (from, to). The score
of a chain is the sum of the entries that it goes through, and its point has ones there.
"""

from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from estimators.mappings.finite import check_finite, mapping
from estimators.mappings.kept import compiled_loops
from estimators.mappings.support import sparsemax


class ChainParts(NamedTuple):
    """The two parts of a vector with an entry for each state and transition."""

    unaries: Float[Tensor, "*batch T S"]
    transitions: Float[Tensor, "*batch T_1 S S"]


class TopKChains(NamedTuple):
    """Sparsemax restricted to the k best chains of every row."""

    chains: Int[Tensor, "B k T"]
    """Best first, distinct within a row."""
    probabilities: Float[Tensor, "B k"]
    """Differentiable in the scores; zero outside the support."""


def split_chain(vectors: Float[Tensor, "*batch P"], length: int, states: int) -> ChainParts:
    """The entries of states and of transitions."""
    unaries, transitions = vectors.tensor_split([length * states], dim=-1)
    return ChainParts(
        unaries.unflatten(-1, (length, states)),
        transitions.unflatten(-1, (length - 1, states, states)),
    )


def join_chain(
    unaries: Float[Tensor, "*batch T S"], transitions: Float[Tensor, "*batch T_1 S S"]
) -> Float[Tensor, "*batch P"]:
    """One vector of both."""
    return torch.cat([unaries.flatten(-2), transitions.flatten(-3)], dim=-1)


def entries_of(chains: Int[Tensor, "*batch T"], states: int) -> Int[Tensor, "*batch entries"]:
    """Where the entries of chains are: T of states, then T − 1 of transitions."""
    length = chains.shape[-1]
    place = torch.arange(length, device=chains.device)
    pairs = chains[..., :-1] * states + chains[..., 1:]
    links = (length + place[:-1] * states) * states
    return torch.cat([place * states + chains, links + pairs], dim=-1)


def chain_points(
    chains: Int[Tensor, "*batch T"], states: int, dtype: torch.dtype
) -> Float[Tensor, "*batch P"]:
    """Ones at the entries of chains, and zeros elsewhere."""
    length = chains.shape[-1]
    size = (length + (length - 1) * states) * states
    points = torch.zeros(*chains.shape[:-1], size, dtype=dtype, device=chains.device)
    return points.scatter_(-1, entries_of(chains, states), 1)


def sums_along(
    vectors: Float[Tensor, "B P"], chains: Int[Tensor, "B M T"], states: int
) -> Float[Tensor, "B M"]:
    """Of the entries of each chain."""
    entries = entries_of(chains, states)
    return vectors.gather(1, entries.flatten(1)).view(entries.shape).sum(dim=2)


def best_chains(
    scores: Float[Tensor, "B P"], length: int, states: int
) -> Int[Tensor, "B {length}"]:
    """The chain of highest score for every row (Viterbi 1967); of equal ones the first in
    lexicographic order."""
    scores = scores.detach()
    if (kernel := _kernel(scores)) is not None:
        best = torch.empty(len(scores), length, dtype=torch.int64)
        kernel.best(scores.contiguous().numpy(), best.numpy(), states)
        return best
    unaries, transitions = split_chain(scores.double(), length, states)
    value = unaries + _ahead(scores, length, states)
    row = torch.arange(len(scores), device=scores.device)
    path = [value[:, 0].argmax(dim=1)]
    for place, link in enumerate(transitions.unbind(1), 1):
        path.append((link[row, path[-1]] + value[:, place]).argmax(dim=1))
    return torch.stack(path, dim=1)


def below_the_best(scores: Float[Tensor, "B P"], length: int, states: int) -> Float[Tensor, "B P"]:
    """Scores of the same differences between chains, of which none is above 0 and those of the best
    chain are all 0.

    What the best way on from a state scores, without its gradient, is taken from the transitions
    that leave the state and given to those that lead to it. So the last T − 1 states have 0, a sum
    along a chain loses no digits to what all have in common, and a log-partition is at most that of
    equal scores.
    """
    unaries, transitions = split_chain(scores.double(), length, states)
    ahead = _ahead(scores.detach(), length, states)
    value = unaries + ahead
    links = transitions + value[:, 1:, None, :] - ahead[:, :-1, :, None]
    first = value[:, :1] - value[:, :1].detach().amax(dim=2, keepdim=True)
    rest = torch.zeros_like(value[:, 1:])
    return join_chain(torch.cat([first, rest], dim=1), links).to(scores.dtype)


def _ahead(
    scores: Float[Tensor, "B P"], length: int, states: int
) -> Float64[Tensor, "B {length} {states}"]:
    """The best sum of what comes after each state at each place."""
    if (kernel := _kernel(scores)) is not None:
        found = torch.empty(len(scores), length, states, dtype=torch.float64)
        kernel.ahead(scores.contiguous().numpy(), found.numpy())
        return found
    unaries, transitions = split_chain(scores.double(), length, states)
    ahead = [torch.zeros_like(unaries[:, 0])]
    for place in range(length - 1, 0, -1):
        value = unaries[:, place] + ahead[-1]
        ahead.append((transitions[:, place - 1] + value[:, None, :]).amax(dim=2))
    return torch.stack(ahead[::-1], dim=1)


@mapping
def top_chains(
    scores: Float[Tensor, "B P"], length: int, states: int, count: int
) -> Int[Tensor, "B {count} {length}"]:
    """The chains of highest score for every row, best first.

    From the last place on, the `count` best ways on from each state are kept, by what they lose
    against the best one.

    Args:
        scores: of any floating dtype.
        length: T.
        states: S.
        count: 1 to Sᵀ.
    Raises:
        TypeError: the scores are no floating-point numbers.
        ValueError: the count is out of range, or a score is not finite.
    """
    if not 1 <= count <= states**length:
        raise ValueError(f"{count} chains were asked for, of {states**length}")
    check_finite(scores)
    parts = split_chain(below_the_best(scores.detach(), length, states), length, states)
    sums, steps = parts.unaries.new_zeros(len(scores), states, 1), []
    first = parts.unaries[:, 0, None, :]
    for link in [*parts.transitions.unbind(1)[::-1], first]:
        before = sums.shape[2]
        both = (link[..., None] + sums[:, None]).flatten(2)
        sums, origin = both.topk(min(count, both.shape[2]), dim=2, sorted=True)
        steps.append((origin // before, origin % before))
    row = torch.arange(len(scores), device=scores.device)[:, None]
    rank = torch.arange(count, device=scores.device).expand(len(scores), count)
    state, path = torch.zeros_like(rank), []
    for following, origin in reversed(steps):
        state, rank = following[row, state, rank], origin[row, state, rank]
        path.append(state)
    return torch.stack(path, dim=2)


@mapping
def topk_sparsemax_chains(
    scores: Float[Tensor, "B P"], length: int, states: int, count: int
) -> TopKChains:
    """Top-k sparsemax (Correia et al. 2020, section 4.1): sparsemax over the k best chains.

    Args:
        scores: of any floating dtype.
        length: T.
        states: S.
        count: k, 1 to Sᵀ; with all there are this is the full sparsemax.
    Raises:
        TypeError: the scores are no floating-point numbers.
        ValueError: the count is out of range, or a score is not finite.
    """
    chains = top_chains(scores, length, states, count)
    totals = sums_along(below_the_best(scores, length, states), chains, states)
    return TopKChains(chains, sparsemax(totals))


def _kernel(scores: Tensor) -> ModuleType | None:
    """The compiled loops, where they take these scores."""
    taken = scores.device.type == "cpu" and scores.dtype in (torch.float32, torch.float64)
    return compiled_loops("estimators.mappings.compiled.chains") if taken else None
