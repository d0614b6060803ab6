"""The sparse mappings against the library, the reference solver and brute force."""

from pathlib import Path

import numpy as np
import pytest
import torch
from entmax import sparsemax
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from estimators.mappings import (
    SparseSolution,
    all_bit_vectors,
    bit_marginals,
    sparsemap_bits,
    top_bit_vectors,
    topk_sparsemax,
)

REFERENCE = np.load(Path(__file__).parents[1] / "data" / "sparsemap_lp.npz")
PROBLEMS = sorted(
    name.removesuffix("_marginals") for name in REFERENCE.files if name.endswith("_marginals")
)


def random_scores(rows: int, size: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, size, generator=generator, dtype=torch.float64)


def budget_of(problem: str, size: int) -> int | None:
    """The reference's problems with a budget have half of the bits."""
    return size // 2 if problem.startswith("budget") else None


@pytest.mark.parametrize("problem", PROBLEMS)
def test_marginals_match_the_reference_solver(problem: str) -> None:
    scores = torch.from_numpy(REFERENCE[f"{problem}_scores"]).double()
    wanted = torch.from_numpy(REFERENCE[f"{problem}_marginals"])
    found = sparsemap_bits(scores, budget_of(problem, scores.shape[1]))
    torch.testing.assert_close(found.marginals, wanted, rtol=0, atol=2e-7)


def check_solution(solution: SparseSolution, budget: int | None) -> None:
    """What any decomposition must keep."""
    vertices, probabilities, marginals = solution
    assert ((vertices == 0) | (vertices == 1)).all()
    assert (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(len(probabilities)).double())
    torch.testing.assert_close(torch.einsum("bm,bmd->bd", probabilities, vertices), marginals)
    fractional = ((marginals > 1e-9) & (marginals < 1 - 1e-9)).sum(dim=1)
    assert ((probabilities > 0).sum(dim=1) <= fractional + 1).all()
    for row in range(len(vertices)):
        used = vertices[row][probabilities[row] > 0]
        assert len(used.unique(dim=0)) == len(used)
        if budget is not None:
            assert used.sum(dim=1).max() <= budget


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(1, 12),
    budget=st.one_of(st.none(), st.integers(0, 13)),
    parametrisation=st.sampled_from(["pairs", "single"]),
    scale=st.sampled_from([0.0, 0.1, 1.0, 10.0, 1e4]),
    seed=st.integers(0, 10**6),
)
def test_sparsemap_keeps_its_invariants(
    size: int, budget: int | None, parametrisation: str, scale: float, seed: int
) -> None:
    scores = random_scores(3, size, seed, scale)
    solution = sparsemap_bits(scores, budget, parametrisation)  # type: ignore[arg-type]
    check_solution(solution, budget)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    shuffled = sparsemap_bits(scores[:, order], budget, parametrisation)  # type: ignore[arg-type]
    torch.testing.assert_close(shuffled.marginals, solution.marginals[:, order])


def test_a_support_counted_twice_is_caught() -> None:
    right = sparsemap_bits(random_scores(2, 4))
    doubled = SparseSolution(
        torch.cat([right.vertices, right.vertices], dim=1),
        torch.cat([right.probabilities, right.probabilities], dim=1) / 2,
        right.marginals,
    )
    with pytest.raises(AssertionError):
        check_solution(doubled, None)


@pytest.mark.parametrize("parametrisation", ["pairs", "single"])
@pytest.mark.parametrize("budget", [None, 0, 1, 2, 3, 5])
def test_marginals_solve_the_quadratic_problem(budget: int | None, parametrisation: str) -> None:
    """Optimality: no step towards any allowed vertex lowers ½‖μ − s‖²."""
    scores = random_scores(20, 5, scale=1.5)
    target = (1 + scores) / 2 if parametrisation == "pairs" else scores
    marginals = bit_marginals(scores, budget, parametrisation)  # type: ignore[arg-type]
    vertices = all_bit_vectors(5, scores)
    vertices = vertices[vertices.sum(dim=1) <= (5 if budget is None else budget)]
    slope = marginals - target
    directions = vertices[None] - marginals[:, None]
    assert (torch.einsum("bd,bmd->bm", slope, directions) >= -1e-9).all()


@pytest.mark.parametrize("budget", [None, 3])
def test_marginals_and_probabilities_pass_gradcheck(budget: int | None) -> None:
    scores = random_scores(4, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: sparsemap_bits(s, budget).marginals, scores)
    assert torch.autograd.gradcheck(lambda s: sparsemap_bits(s, budget).probabilities, scores)


def test_both_parametrisations_agree() -> None:
    scores = random_scores(4, 6)
    for budget in (None, 2):
        pairs = bit_marginals(scores, budget, "pairs")
        torch.testing.assert_close(pairs, bit_marginals((1 + scores) / 2, budget, "single"))


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="budget is -1"):
        sparsemap_bits(random_scores(1, 3), -1)


@pytest.mark.parametrize("size", [1, 3, 6])
def test_top_bit_vectors_are_the_best(size: int) -> None:
    scores = random_scores(10, size)
    every = scores @ all_bit_vectors(size, scores).T
    for k in range(1, 2**size + 1):
        found = top_bit_vectors(scores, k)
        got = torch.einsum("bkd,bd->bk", found, scores)
        torch.testing.assert_close(got, every.topk(k, dim=1).values)
        assert all(len(row.unique(dim=0)) == k for row in found)


def test_top_bit_vectors_with_ties_are_distinct() -> None:
    for k in (1, 5, 16):
        found = top_bit_vectors(torch.zeros(1, 4), k)
        assert len(found[0].unique(dim=0)) == k


def test_top_bit_vectors_at_size() -> None:
    scores = random_scores(3, 512, scale=0.1)
    found = top_bit_vectors(scores, 10)
    got = torch.einsum("bkd,bd->bk", found, scores)
    assert (got.diff(dim=1) <= 0).all()
    torch.testing.assert_close(got[:, 0], scores.clamp(min=0).sum(dim=1))


@pytest.mark.parametrize("k", [0, 9])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k = {k}"):
        top_bit_vectors(random_scores(1, 3), k)


def test_topk_sparsemax_with_all_is_the_full_sparsemax() -> None:
    scores = random_scores(8, 5).requires_grad_()
    every = all_bit_vectors(5, scores)
    weight = random_scores(1, 32, seed=9).squeeze(0)
    full = sparsemax(scores @ every.T, dim=1)
    vertices, probabilities, exact = topk_sparsemax(scores, 32)
    index = (vertices @ torch.tensor([16.0, 8, 4, 2, 1]).double()).long()
    torch.testing.assert_close(probabilities, full.gather(1, index))
    assert exact.all()
    (wanted,) = torch.autograd.grad((full * weight).sum(), scores, retain_graph=True)
    (found,) = torch.autograd.grad((probabilities * weight[index]).sum(), scores)
    torch.testing.assert_close(found, wanted)


def test_topk_sparsemax_certificate() -> None:
    """Where it says exact, it is the full sparsemax. Sufficient only: it may be without saying."""
    scores = random_scores(200, 6, scale=0.6)
    full = sparsemax(scores @ all_bit_vectors(6, scores).T, dim=1)
    vertices, probabilities, exact = topk_sparsemax(scores, 5)
    marginals = torch.einsum("bk,bkd->bd", probabilities, vertices)
    error = (marginals - full @ all_bit_vectors(6, scores)).abs().max(dim=1).values
    assert exact.any()
    assert (error[exact] < 1e-9).all()
    assert (error[~exact] > 1e-3).any()
