"""The best subsets, and sparsemax over them, against all of them."""

import itertools
import math

import pytest
import torch
from entmax import sparsemax
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from estimators.mappings import top_subsets, topk_sparsemax_subsets
from tests.estimators.mappings.test_mappings import random_scores


def every_subset(items: int, chosen: int) -> Tensor:
    """As bits, (M, n)."""
    subsets = itertools.combinations(range(items), chosen)
    return torch.tensor([[float(i in one) for i in range(items)] for one in subsets]).double()


@settings(max_examples=100, deadline=None)
@given(
    items=st.integers(1, 7),
    chosen=st.integers(1, 7),
    count=st.integers(1, 40),
    scale=st.sampled_from([1.0, 1e4]),
    ties=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_the_best_subsets_leave_none_out(
    items: int, chosen: int, count: int, scale: float, ties: bool, seed: int
) -> None:
    chosen = min(chosen, items)
    every = every_subset(items, chosen)
    count = min(count, len(every))
    scores = random_scores(3, items, seed, scale)
    scores = scores.round() if ties else scores
    found = top_subsets(scores, chosen, count)
    assert (found.sum(dim=2) == chosen).all()
    assert all(len(row.unique(dim=0)) == count for row in found)
    wanted = (scores @ every.T).topk(count, dim=1).values
    mine = torch.einsum("bmn,bn->bm", found, scores)
    torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("count", [1, 4, 20, 36])
def test_sparsemax_is_over_the_best_of_all_assignments(count: int) -> None:
    scores = 0.3 * random_scores(6, 8).unflatten(1, (2, 4))
    scores.requires_grad_()
    every = torch.stack(
        [torch.stack(pair) for pair in itertools.product(every_subset(4, 2), repeat=2)]
    )
    totals = torch.einsum("mvn,bvn->bm", every, scores)
    best, order = totals.topk(count, dim=1)
    vertices, probabilities = topk_sparsemax_subsets(scores, 2, count)
    assert torch.equal(vertices, every[order])
    torch.testing.assert_close(probabilities, sparsemax(best, dim=1))
    weight = torch.linspace(-1, 2, count, dtype=torch.float64)
    found, wanted = (
        torch.autograd.grad((p @ weight).sum(), scores, retain_graph=True)[0]
        for p in (probabilities, sparsemax(best, dim=1))
    )
    torch.testing.assert_close(found, wanted)


def test_what_scores_have_in_common_costs_no_digits() -> None:
    """Multiples of 2⁻⁸ are exact next to 1e4 in float32, and their sums are not."""
    scores = (random_scores(16, 40) * 256).round().float()[:, None] / 256
    for found, wanted in zip(
        topk_sparsemax_subsets(scores + 1e4, 7, 20),
        topk_sparsemax_subsets(scores, 7, 20),
        strict=True,
    ):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(("chosen", "count"), [(2, 0), (2, 7), (0, 1), (5, 1)])
def test_numbers_out_of_range_are_refused(chosen: int, count: int) -> None:
    there = math.comb(4, chosen) if chosen else 0
    with pytest.raises(ValueError, match=f"^{count} subsets were asked for, of {there}$"):
        top_subsets(torch.zeros(1, 4), chosen, count)
    with pytest.raises(ValueError, match="not finite"):
        top_subsets(torch.full((1, 4), torch.inf), 2, 1)
