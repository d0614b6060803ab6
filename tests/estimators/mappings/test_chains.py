"""The best chains, and sparsemax over these, against all of them."""

import sys

import pytest
import torch
from entmax import sparsemax
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from estimators.mappings import (
    below_the_best,
    best_chains,
    chain_points,
    chains,
    kept,
    sums_along,
    top_chains,
    topk_sparsemax_chains,
)
from tests.estimators.mappings.test_mappings import random_scores
from tests.estimators.mappings.test_oracles import all_chains


def entries(length: int, states: int) -> int:
    return (length + (length - 1) * states) * states


def every_chain(length: int, states: int) -> Tensor:
    """In lexicographic order."""
    return torch.cartesian_prod(*[torch.arange(states)] * length).view(-1, length)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 4),
    states=st.integers(1, 4),
    count=st.integers(1, 300),
    scale=st.sampled_from([1.0, 1e4]),
    ties=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_the_best_chains_leave_none_out(
    length: int, states: int, count: int, scale: float, ties: bool, seed: int
) -> None:
    count = min(count, states**length)
    scores = random_scores(3, entries(length, states), seed, scale)
    scores = scores.round() if ties else scores
    found = top_chains(scores, length, states, count)
    assert all(len(row.unique(dim=0)) == count for row in found)
    wanted = (scores @ all_chains(length, states).T).topk(count, dim=1).values
    mine = sums_along(scores, found, states)
    torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("numba", [True, False])
@pytest.mark.parametrize(("length", "states"), [(1, 1), (1, 5), (4, 1), (5, 3), (3, 6)])
def test_of_equal_chains_the_first_is_best(
    length: int, states: int, numba: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where scores are few whole numbers, by compiled loops and by whole-tensor operations."""
    if not numba:
        monkeypatch.setattr(chains, "compiled_loops", lambda module: None)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-1, 2, (200, entries(length, states)), generator=generator).to(dtype)
    totals = scores.double() @ all_chains(length, states).T
    wanted = every_chain(length, states)[totals.argmax(dim=1)]
    assert torch.equal(best_chains(scores, length, states), wanted)


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_loops_are_the_tensor_operations(
    dtype: torch.dtype, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = random_scores(50, entries(9, 5), scale=scale).to(dtype)
    best, below = best_chains(scores, 9, 5), below_the_best(scores, 9, 5)
    monkeypatch.setattr(chains, "compiled_loops", lambda module: None)
    assert torch.equal(best_chains(scores, 9, 5), best)
    assert torch.equal(below_the_best(scores, 9, 5), below)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_below_the_best_differences_are_the_same(dtype: torch.dtype) -> None:
    """None is lost to what all have in common, and none is above the best chain."""
    scores = 1e4 + random_scores(20, entries(4, 3)).to(dtype)
    below, every = below_the_best(scores, 4, 3), every_chain(4, 3).expand(20, -1, -1)
    assert (below <= 0).all()
    totals = sums_along(scores.double(), every, 3)
    wanted = totals - totals.amax(dim=1, keepdim=True)
    digits = 50 * torch.finfo(dtype).eps
    found = sums_along(below, every, 3).double()
    torch.testing.assert_close(found, wanted, rtol=digits, atol=max(digits, 1e-10))
    best = best_chains(scores, 4, 3)[:, None]
    assert (sums_along(below, best, 3) == 0).all()


@pytest.mark.parametrize("count", [1, 4, 20, 27])
def test_sparsemax_is_over_the_best_of_all_chains(count: int) -> None:
    scores = (0.3 * random_scores(6, entries(3, 3))).requires_grad_()
    best, order = (scores @ all_chains(3, 3).T).topk(count, dim=1)
    found, probabilities = topk_sparsemax_chains(scores, 3, 3, count)
    assert torch.equal(found, every_chain(3, 3)[order])
    torch.testing.assert_close(probabilities, sparsemax(best, dim=1))
    weight = torch.linspace(-1, 2, count, dtype=torch.float64)
    slopes = [
        torch.autograd.grad((p @ weight).sum(), scores, retain_graph=True)[0]
        for p in (probabilities, sparsemax(best, dim=1))
    ]
    torch.testing.assert_close(*slopes)


def test_points_have_ones_where_chains_go() -> None:
    every = every_chain(4, 3)
    assert torch.equal(chain_points(every, 3, torch.float64), all_chains(4, 3))


@pytest.mark.parametrize(("length", "states", "count"), [(2, 3, 0), (2, 3, 10), (1, 1, 2)])
def test_numbers_out_of_range_are_refused(length: int, states: int, count: int) -> None:
    scores = torch.zeros(2, entries(length, states))
    with pytest.raises(ValueError, match=f"^{count} chains were asked for, of {states**length}$"):
        top_chains(scores, length, states, count)


def test_scores_that_are_not_finite_are_refused() -> None:
    scores = torch.zeros(2, entries(2, 2))
    scores[1, 3] = torch.nan
    with pytest.raises(ValueError, match="the scores of row 1 are not finite"):
        topk_sparsemax_chains(scores, 2, 2, 2)


def test_without_numba_it_runs_and_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "estimators.mappings.compiled.chains", None)
    kept.compiled_loops.cache_clear()
    with pytest.warns(UserWarning, match="numba is not installed"):
        assert best_chains(torch.zeros(3, 8), 2, 2).tolist() == [[0, 0]] * 3
    kept.compiled_loops.cache_clear()
