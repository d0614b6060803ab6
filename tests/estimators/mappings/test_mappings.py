"""The sparse mappings against the library, the reference solver and brute force."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from entmax import sparsemax
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from estimators.mappings import (
    BitSolver,
    Parametrisation,
    SparseSolution,
    all_bit_vectors,
    best_bits,
    bit_marginals,
    sparsemap,
    sparsemap_bits,
    top_bit_vectors,
    topk_sparsemax,
)
from estimators.mappings.active_set import on_its_support

SOLVERS: tuple[BitSolver, ...] = ("active-set", "closed-form")
REFERENCE = np.load(Path(__file__).parents[2] / "data" / "sparsemap_lp.npz")
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
    budget = budget_of(problem, scores.shape[1])
    for solver in SOLVERS:
        found = sparsemap_bits(scores, budget, solver=solver)
        torch.testing.assert_close(found.marginals, wanted, rtol=0, atol=2e-7)
        assert (found.residual <= 1e-6).all()


def check_solution(solution: SparseSolution, budget: int | None, tolerance: float = 1e-6) -> None:
    """What any distribution must keep."""
    vertices, probabilities = solution.vertices, solution.probabilities
    marginals, residual, truncated = solution.marginals, solution.residual, solution.truncated
    assert ((vertices == 0) | (vertices == 1)).all()
    assert (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(len(probabilities)).double())
    mean = torch.einsum("bm,bmd->bd", probabilities, vertices)
    assert ((mean - marginals).norm(dim=1) <= tolerance).all()
    assert (residual <= tolerance).all()
    fractional = ((marginals > 1e-9) & (marginals < 1 - 1e-9)).sum(dim=1)
    used = (probabilities > 0).sum(dim=1)
    assert (used <= fractional + 1).all()
    assert not truncated[used == fractional + 1].any()
    for row in range(len(vertices)):
        here = vertices[row][probabilities[row] > 0]
        assert len(here.unique(dim=0)) == len(here)
        if budget is not None:
            assert here.sum(dim=1).max() <= budget


@settings(max_examples=300, deadline=None)
@given(
    size=st.integers(1, 12),
    budget=st.one_of(st.none(), st.integers(0, 13)),
    parametrisation=st.sampled_from(["pairs", "single"]),
    solver=st.sampled_from(SOLVERS),
    scale=st.sampled_from([0.0, 0.1, 1.0, 10.0, 1e4]),
    seed=st.integers(0, 10**6),
)
def test_sparsemap_keeps_its_invariants(
    size: int,
    budget: int | None,
    parametrisation: Parametrisation,
    solver: BitSolver,
    scale: float,
    seed: int,
) -> None:
    scores = random_scores(3, size, seed, scale)
    solution = sparsemap_bits(scores, budget, parametrisation, solver)
    check_solution(solution, budget)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    shuffled = sparsemap_bits(scores[:, order], budget, parametrisation, solver)
    torch.testing.assert_close(shuffled.marginals, solution.marginals[:, order])
    if solver == "closed-form" and scale > 0:
        torch.testing.assert_close(shuffled.probabilities, solution.probabilities)
        positive = solution.probabilities > 1e-9
        assert torch.equal(shuffled.vertices[positive], solution.vertices[:, :, order][positive])


def test_a_support_counted_twice_is_caught() -> None:
    right = sparsemap_bits(random_scores(2, 4))
    doubled = replace(
        right,
        vertices=torch.cat([right.vertices, right.vertices], dim=1),
        probabilities=torch.cat([right.probabilities, right.probabilities], dim=1) / 2,
    )
    with pytest.raises(AssertionError):
        check_solution(doubled, None)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("scores", "budget"),
    [
        ([[0.0, 0.0, 0.0]], None),
        ([[0.5, 0.5, 0.5]], 1),
        ([[1e4, -1e4, 1e4]], None),
        ([[1e4, 1e4, 1e4]], 2),
        ([[0.3]], None),
        ([[0.3, 0.4]], 0),
        ([[0.3, 0.4]], 2),
        ([[0.3, 0.4]], 7),
    ],
)
def test_degenerate_scores(
    scores: list[list[float]], budget: int | None, dtype: torch.dtype, solver: BitSolver
) -> None:
    eta = torch.tensor(scores, dtype=dtype, requires_grad=True)
    solution = sparsemap_bits(eta, budget, solver=solver)
    assert solution.probabilities.dtype == dtype
    exact = replace(
        solution,
        vertices=solution.vertices.double(),
        probabilities=solution.probabilities.double(),
        marginals=solution.marginals.double(),
        residual=solution.residual.double(),
    )
    check_solution(exact, budget)
    (gradient,) = torch.autograd.grad(solution.probabilities.square().sum(), eta)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_rows_at_all(solver: BitSolver) -> None:
    solution = sparsemap_bits(torch.zeros(0, 3), solver=solver)
    assert solution.marginals.shape == (0, 3)
    assert solution.vertices.shape[::2] == (0, 3)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(
    "mapping",
    [
        sparsemap_bits,
        bit_marginals,
        lambda scores: bit_marginals(scores, 1),
        lambda scores: sparsemap(scores, best_bits),
        lambda scores: top_bit_vectors(scores, 3),
        lambda scores: topk_sparsemax(scores, 3),
    ],
)
def test_scores_that_are_not_finite_name_the_row(
    mapping: Callable[[Tensor], object], value: float
) -> None:
    scores = torch.tensor([[0.1, 0.2], [value, 0.3], [0.0, value]])
    with pytest.raises(ValueError, match=r"scores of row 1 are not finite: \[.*, 0\.3"):
        mapping(scores)


def test_a_row_that_has_not_converged_says_so() -> None:
    scores = random_scores(4, 10, scale=0.1)
    solution = sparsemap_bits(scores, max_iterations=3)
    assert (solution.residual > 1e-2).all()
    assert not sparsemap(scores, best_bits, max_iterations=3).converged.all()


def test_a_smaller_tolerance_takes_more_vertices() -> None:
    scores = random_scores(16, 64, scale=0.1)
    supports = []
    for tolerance in (1e-1, 1e-3, 1e-6):
        solution = sparsemap_bits(scores, tolerance=tolerance)
        assert (solution.residual <= tolerance).all()
        supports.append(float((solution.probabilities > 0).sum(dim=1).double().mean()))
    assert supports[0] < supports[1] < supports[2] < 64
    assert solution.truncated.all()


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


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("budget", [None, 3])
def test_marginals_and_probabilities_pass_gradcheck(budget: int | None, solver: BitSolver) -> None:
    """Second derivatives are zero, as they should be: the solution is piecewise linear."""
    scores = random_scores(4, 6, seed=1).requires_grad_()

    def solution(s: Tensor) -> tuple[Tensor, Tensor]:
        found = sparsemap_bits(s, budget, solver=solver, tolerance=1e-12)
        return found.probabilities, found.marginals

    assert torch.autograd.gradcheck(solution, scores)
    assert torch.autograd.gradgradcheck(solution, scores)


@pytest.mark.parametrize("budget", [None, 3])
def test_a_full_set_has_the_jacobian_of_the_marginals(budget: int | None) -> None:
    scores = random_scores(6, 6, seed=2, scale=0.5).requires_grad_()
    solution = sparsemap_bits(scores, budget, tolerance=1e-12)
    mean = torch.einsum("bm,bmd->bd", solution.probabilities, solution.vertices)
    weight = random_scores(6, 6, seed=3)
    (found,) = torch.autograd.grad((mean * weight).sum(), scores, retain_graph=True)
    (wanted,) = torch.autograd.grad((solution.marginals * weight).sum(), scores)
    full = ~solution.truncated
    assert full.sum() >= 3
    torch.testing.assert_close(found[full], wanted[full])


@pytest.mark.parametrize("number", range(12))
def test_gradient_on_the_reference_active_sets(number: int) -> None:
    """For the reference's own vertices, its own vector-Jacobian product."""
    part = {name: REFERENCE[f"vjp{number}_{name}"] for name in ("scores", "vertices", "probs")}
    scores = torch.from_numpy(part["scores"]).double()[None].requires_grad_()
    vertices = torch.from_numpy(part["vertices"]).double()[None]
    weights = torch.from_numpy(part["probs"]).double()[None]
    _, probabilities = on_its_support(vertices, weights, (1 + scores) / 2)
    upstream = torch.from_numpy(REFERENCE[f"vjp{number}_dprobs"]).double()
    (found,) = torch.autograd.grad((probabilities * upstream).sum(), scores)
    wanted = torch.from_numpy(REFERENCE[f"vjp{number}_dscores"]).double()[None]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_solver_agrees_with_its_set_solved_directly() -> None:
    scores = random_scores(5, 8, scale=0.5).requires_grad_()
    shifted = (1 + scores) / 2
    solution = sparsemap_bits(scores)
    _, direct = on_its_support(solution.vertices, solution.probabilities.detach(), shifted)
    weight = random_scores(5, direct.shape[1], seed=4)
    gradients = [
        torch.autograd.grad((p * weight).sum(), scores, retain_graph=True)[0]
        for p in (solution.probabilities, direct)
    ]
    torch.testing.assert_close(*gradients)


def test_both_parametrisations_agree() -> None:
    scores = random_scores(4, 6)
    for budget in (None, 2):
        pairs = bit_marginals(scores, budget, "pairs")
        torch.testing.assert_close(pairs, bit_marginals((1 + scores) / 2, budget, "single"))


def test_a_bit_that_is_always_on_may_end_where_a_gap_does() -> None:
    solution = sparsemap_bits(10 * random_scores(3, 11, seed=5), 4, solver="closed-form")
    check_solution(solution, 4)


def test_the_closed_form_keeps_a_budget_of_many_bits() -> None:
    """Scores of float32 all round alike, so that hundreds of marginals miss their sum."""
    scores = (random_scores(60, 512, seed=1, scale=0.7) + 0.3).float().double()
    check_solution(sparsemap_bits(scores, 256, solver="closed-form"), 256)


@pytest.mark.parametrize(("dtype", "size"), [(torch.bfloat16, 600), (torch.float16, 4200)])
@pytest.mark.parametrize("share", [None, 0.5])
def test_dtypes_that_cannot_count_to_the_number_of_bits(
    dtype: torch.dtype, size: int, share: float | None
) -> None:
    """Vertices, probabilities and marginals are those of float64, rounded."""
    scores = random_scores(2, size).to(dtype)
    budget = None if share is None else int(share * size)
    found, wanted = (
        sparsemap_bits(s, budget, solver="closed-form") for s in (scores, scores.double())
    )
    assert torch.equal(found.vertices.double(), wanted.vertices)
    least = torch.finfo(dtype).tiny  # of vertices between bits whose marginals are equal
    torch.testing.assert_close(
        found.probabilities, wanted.probabilities.to(dtype), rtol=0, atol=1.01 * least
    )
    torch.testing.assert_close(bit_marginals(scores, budget), wanted.marginals.to(dtype))


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


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("k", [2, 10, 50])
def test_topk_sparsemax_of_many_large_scores_in_float32(k: int, scale: float) -> None:
    """What all the best have in common is large, and their differences decide."""
    scores = random_scores(64, 128, scale=scale).float()
    found, wanted = (
        torch.einsum("bk,bkd->bd", p, vertices)
        for vertices, p, _ in (topk_sparsemax(scores, k), topk_sparsemax(scores.double(), k))
    )
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-5)
