"""The mappings of categorical variables against all C^V assignments, and against those of bits."""

import itertools
import time
from collections.abc import Callable

import pytest
import torch
from entmax import sparsemax
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import one_hot

from estimators.mappings import (
    SparseAssignments,
    sparsemap_bits,
    sparsemap_categoricals,
    top_assignments,
    top_bit_vectors,
    topk_sparsemax_categoricals,
)
from tests.estimators.mappings.test_mappings import random_scores
from tests.estimators.mappings.test_oracles import nearest_in_hull

SIZES = [(1, 1), (1, 6), (3, 1), (5, 2), (2, 5), (4, 3)]
ON_THE_THRESHOLD = [0.7, 0.1, -0.1]
"""The library rounds the last one into the support of sparsemax, of which it counts two."""


def scores_of(rows: int, variables: int, categories: int, seed: int = 0) -> Tensor:
    return random_scores(rows, variables * categories, seed).unflatten(1, (variables, categories))


def every_assignment(variables: int, categories: int) -> Tensor:
    """All of them, (C^V, V)."""
    return torch.tensor(list(itertools.product(range(categories), repeat=variables)))


def score(scores: Tensor, assignments: Tensor) -> Tensor:
    """Of assignments (B, N, V) under scores (B, V, C); (B, N)."""
    return scores.gather(2, assignments.transpose(1, 2)).sum(dim=1)


def points(assignments: Tensor, categories: int) -> Tensor:
    return one_hot(assignments, categories).double()


def assert_distinct(assignments: Tensor) -> None:
    for row in assignments:
        assert len(row.unique(dim=0)) == len(row)


@pytest.mark.parametrize(("variables", "categories"), SIZES)
def test_top_assignments_are_the_best_of_all(variables: int, categories: int) -> None:
    scores = scores_of(10, variables, categories)
    every = every_assignment(variables, categories).expand(10, -1, -1)
    for k in range(1, categories**variables + 1):
        found = top_assignments(scores, k)
        assert found.shape == (10, k, variables)
        assert found.dtype == torch.int64
        best = score(scores, every).topk(k, dim=1).indices
        assert torch.equal(found, every.gather(1, best[:, :, None].expand(-1, -1, variables)))


@pytest.mark.parametrize("k", [1, 3, 17, 64])
def test_top_assignments_of_two_categories_are_those_of_bits(k: int) -> None:
    scores = scores_of(20, 9, 2)
    bits = top_bit_vectors(scores[:, :, 0] - scores[:, :, 1], k)
    assert torch.equal(top_assignments(scores, k), 1 - bits.long())


@pytest.mark.parametrize("k", [1, 2, 40, 256])
def test_top_assignments_of_one_variable_are_its_top_scores(k: int) -> None:
    """Even where the losses, against a best that is far off, round to the same number."""
    scores = scores_of(8, 1, 256).float()
    scores[:4, 0, 0] = 1e9
    assert torch.equal(top_assignments(scores, k)[:, :, 0], scores[:, 0].topk(k).indices)


@settings(max_examples=150, deadline=None)
@given(
    variables=st.integers(1, 30),
    categories=st.integers(2, 9),
    k=st.integers(1, 60),
    grid=st.sampled_from([None, 0.25, 4.0]),
    spread=st.floats(0, 3),
    seed=st.integers(0, 10**6),
)
def test_top_assignments_leave_none_out(
    variables: int, categories: int, k: int, grid: float | None, spread: float, seed: int
) -> None:
    """Against sums over all categories of all variables; with ties, and variables that differ."""
    k = min(k, categories**variables)
    scores = scores_of(3, variables, categories, seed)
    scores = scores * (spread * random_scores(3, variables, seed + 1)).exp()[:, :, None]
    if grid is not None:
        scores = (scores / grid).round() * grid
    wanted = scores.new_zeros(3, 1)
    for variable in range(variables):
        wanted = (wanted[:, :, None] + scores[:, variable, None, :]).flatten(1)
        wanted = wanted.topk(min(k, wanted.shape[1]), dim=1).values
    found = top_assignments(scores, k)
    torch.testing.assert_close(score(scores, found), wanted, rtol=1e-12, atol=1e-9)
    assert_distinct(found)


@pytest.mark.parametrize("mapping", [top_assignments, topk_sparsemax_categoricals])
def test_what_scores_have_in_common_costs_no_digits(
    mapping: Callable[[Tensor, int], Tensor | tuple[Tensor, ...]],
) -> None:
    """Multiples of 2⁻⁸ are exact next to 1e4 in float32, and their sums over variables are not."""
    scores = (scores_of(16, 40, 5) * 256).round().float() / 256
    offsets = (1e4 * random_scores(16, 40, seed=1)).round().float()[:, :, None]
    for found, wanted in zip(mapping(scores + offsets, 20), mapping(scores, 20), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(("variables", "categories", "k"), [(3, 2, 0), (3, 2, 9), (5000, 1, 2)])
def test_k_out_of_range_is_refused(variables: int, categories: int, k: int) -> None:
    every = rf"{categories}\^{variables}"
    with pytest.raises(ValueError, match=f"k = {k} .* of {every}: take 1 to {every}$"):
        top_assignments(scores_of(1, variables, categories), k)


def test_there_may_be_more_assignments_than_numbers() -> None:
    scores = scores_of(2, 3000, 3)
    found = score(scores, top_assignments(scores, 5))
    torch.testing.assert_close(found[:, 0], scores.amax(dim=2).sum(dim=1))
    assert (found.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(
    "mapping",
    [
        sparsemap_categoricals,
        lambda scores: top_assignments(scores, 3),
        lambda scores: topk_sparsemax_categoricals(scores, 3),
    ],
)
def test_scores_that_are_not_finite_name_the_row(
    mapping: Callable[[Tensor], object], value: float
) -> None:
    scores = torch.tensor([[0.1, 0.2], [value, 0.3], [0.0, value]])[:, None, :].repeat(1, 2, 1)
    with pytest.raises(ValueError, match=r"scores of row 1 are not finite: \[\[.*, 0\.3"):
        mapping(scores)


@pytest.mark.parametrize(("variables", "categories"), SIZES)
def test_topk_sparsemax_with_all_is_the_full_sparsemax(variables: int, categories: int) -> None:
    scores = scores_of(8, variables, categories).requires_grad_()
    every = every_assignment(variables, categories)
    full = sparsemax(score(scores, every.expand(8, -1, -1)), dim=1)
    assignments, probabilities = topk_sparsemax_categoricals(scores, len(every))
    digits = categories ** torch.arange(variables - 1, -1, -1)
    index = (assignments * digits).sum(dim=2)
    torch.testing.assert_close(probabilities, full.gather(1, index))
    costs = random_scores(8, len(every), seed=1)
    (wanted,) = torch.autograd.grad((full * costs).sum(), scores, retain_graph=True)
    (found,) = torch.autograd.grad((probabilities * costs.gather(1, index)).sum(), scores)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("k", [2, 10, 50])
def test_topk_sparsemax_in_float32(k: int) -> None:
    scores = scores_of(64, 50, 7).float()
    found, wanted = (
        torch.einsum("bk,bkvc->bvc", p.double(), points(assignments, 7))
        for assignments, p in (
            topk_sparsemax_categoricals(scores, k),
            topk_sparsemax_categoricals(scores.double(), k),
        )
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_topk_sparsemax_and_sparsemap_pass_gradcheck() -> None:
    scores = scores_of(2, 3, 3, seed=1).requires_grad_()

    def solution(s: Tensor) -> tuple[Tensor, ...]:
        sparse = sparsemap_categoricals(s)
        best = topk_sparsemax_categoricals(s, 9)
        return best.probabilities, sparse.probabilities, sparse.marginals

    assert torch.autograd.gradcheck(solution, scores)
    assert torch.autograd.gradgradcheck(solution, scores)


def check_solution(solution: SparseAssignments, scores: Tensor, tolerance: float) -> None:
    """What the distribution must keep, for scores that it was made from, with gradient."""
    assignments, probabilities, marginals = solution
    categories = scores.shape[2]
    used = probabilities.detach() > 0
    wanted = sparsemax(scores.detach().double(), dim=2)
    torch.testing.assert_close(marginals.detach().double(), wanted, rtol=0, atol=tolerance)
    point = points(assignments, categories)
    mean = torch.einsum("bm,bmvc->bvc", probabilities.double(), point)
    torch.testing.assert_close(mean.detach(), wanted, rtol=0, atol=tolerance)
    assert (probabilities >= 0).all()
    support = wanted > 0
    assert torch.equal(used.sum(dim=1), 1 + (support.sum(dim=2) - 1).sum(dim=1))
    for row, here in enumerate(used):
        assert_distinct(assignments[row, here][None])
        in_support = support[row].expand(int(here.sum()), -1, -1)
        assert in_support.gather(2, assignments[row, here, :, None]).all()

    # What is used, and nothing else, has the derivatives of the marginals. They are those of the
    # support: the difference from its mean.
    weights = random_scores(*scores.flatten(1).shape, seed=1).view_as(scores)
    costs = torch.einsum("bmvc,bvc->bm", point, weights)
    found, every, known, nothing = (
        torch.autograd.grad(value, scores, retain_graph=True)[0].double()
        for value in (
            probabilities[used].double() @ costs[used],
            (probabilities.double() * costs).sum(),
            (marginals.double() * weights).sum(),
            3.7 * probabilities[used].sum(),
        )
    )
    mean = (weights * support).sum(dim=2, keepdim=True) / support.sum(dim=2, keepdim=True)
    for gradient in (found, every, known):
        torch.testing.assert_close(
            gradient, (weights - mean) * support, rtol=0, atol=100 * tolerance
        )
    assert (nothing.abs() <= tolerance).all()


def test_a_score_on_the_threshold_leaves_derivatives_that_sum_to_zero() -> None:
    scores = torch.tensor([[ON_THE_THRESHOLD]], dtype=torch.float64).requires_grad_()
    library = sparsemax(scores, dim=2)
    (gradient,) = torch.autograd.grad(library.sum(), scores)
    assert gradient.abs().sum() > 0.1  # as long as this holds, ours is needed
    solution = sparsemap_categoricals(scores)
    check_solution(solution, scores, 1e-12)
    assignments, probabilities = topk_sparsemax_categoricals(scores, 3)
    check_solution(SparseAssignments(assignments, probabilities, solution.marginals), scores, 1e-12)


@settings(max_examples=150, deadline=None)
@given(
    variables=st.integers(1, 7),
    categories=st.integers(1, 9),
    scale=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    grid=st.sampled_from([None, 0.1, 0.5, 1 / 3]),
    offset=st.sampled_from([0.0, 1e4, -1e4]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 10**6),
)
def test_sparsemap_keeps_its_invariants(
    variables: int,
    categories: int,
    scale: float,
    grid: float | None,
    offset: float,
    dtype: torch.dtype,
    seed: int,
) -> None:
    scores = scale * scores_of(3, variables, categories, seed)
    if grid is not None:  # ties within variables and between them, and scores on the threshold
        scores = (scores / grid).round() * grid
    scores = (scores + offset).to(dtype).requires_grad_()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    check_solution(sparsemap_categoricals(scores), scores, tolerance)


def test_an_assignment_between_ends_that_coincide_is_kept() -> None:
    """Of two fair coins that fall alike only one may turn: it then falls unlike the other."""
    scores = torch.zeros(1, 2, 2, dtype=torch.float64, requires_grad=True)
    assignments, probabilities, _ = sparsemap_categoricals(scores)
    assert assignments.tolist() == [[[0, 0], [1, 0], [1, 1]]]
    torch.testing.assert_close(probabilities, torch.tensor([[0.5, 0, 0.5]]).double())
    assert 0 < probabilities[0, 1] < 1e-300
    (gradient,) = torch.autograd.grad(probabilities[0, 0], scores)
    torch.testing.assert_close(gradient, torch.tensor([[[0.5, -0.5], [0, 0]]]).double())


def test_a_check_without_ends_that_coincide_fails() -> None:
    scores = torch.zeros(1, 2, 2, dtype=torch.float64, requires_grad=True)
    right = sparsemap_categoricals(scores)
    without = SparseAssignments(
        right.assignments[:, ::2], right.probabilities[:, ::2], right.marginals
    )
    check_solution(right, scores, 1e-12)
    with pytest.raises(AssertionError):
        check_solution(without, scores, 1e-12)


@pytest.mark.parametrize(("variables", "categories"), SIZES)
def test_marginals_are_the_point_of_the_hull_nearest_to_the_scores(
    variables: int, categories: int
) -> None:
    scores = scores_of(6, variables, categories)
    every = points(every_assignment(variables, categories), categories).flatten(1)
    marginals = sparsemap_categoricals(scores).marginals
    for row in range(6):
        wanted = nearest_in_hull(every, scores[row].flatten())
        torch.testing.assert_close(marginals[row].flatten(), wanted, rtol=0, atol=2e-6)


def test_two_categories_have_the_marginals_of_bits() -> None:
    scores = scores_of(50, 12, 2)
    bits = sparsemap_bits(scores[:, :, 0] - scores[:, :, 1], solver="closed-form")
    found = sparsemap_categoricals(scores)
    torch.testing.assert_close(found.marginals[:, :, 0], bits.marginals)
    assert torch.equal((found.probabilities > 0).sum(dim=1), (bits.probabilities > 0).sum(dim=1))


def test_one_variable_has_sparsemax_of_its_support() -> None:
    scores = scores_of(5, 1, 8)
    assignments, probabilities, _ = sparsemap_categoricals(scores)
    spread = torch.zeros(5, 8).double().scatter_add(1, assignments[:, :, 0], probabilities)
    torch.testing.assert_close(spread, sparsemax(scores[:, 0], dim=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_dtypes_round_what_float64_gives(dtype: torch.dtype) -> None:
    scores = scores_of(4, 20, 10).to(dtype)
    found, wanted = sparsemap_categoricals(scores), sparsemap_categoricals(scores.double())
    assert torch.equal(found.assignments, wanted.assignments)
    assert torch.equal(found.marginals, wanted.marginals.to(dtype))
    assert torch.equal(found.probabilities > 0, wanted.probabilities > 0)
    tiny = torch.finfo(dtype).tiny
    torch.testing.assert_close(
        found.probabilities, wanted.probabilities.to(dtype), rtol=0, atol=tiny
    )


def test_no_rows_at_all() -> None:
    scores = torch.zeros(0, 4, 3)
    assert sparsemap_categoricals(scores).assignments.shape == (0, 1, 4)
    assert topk_sparsemax_categoricals(scores, 5).assignments.shape == (0, 5, 4)


@pytest.mark.parametrize(("variables", "categories"), [(20, 10), (1, 256)])
def test_times(variables: int, categories: int) -> None:
    """To be read, with `-s`: a time asserted is a test that fails on a busy machine."""
    scores = scores_of(64, variables, categories).float()
    mappings: dict[str, Callable[[], object]] = {
        "top_assignments": lambda: top_assignments(scores, 32),
        "topk_sparsemax_categoricals": lambda: topk_sparsemax_categoricals(scores, 32),
        "sparsemap_categoricals": lambda: sparsemap_categoricals(scores),
    }
    for name, mapping in mappings.items():
        seconds = []
        for _ in range(10):
            begin = time.perf_counter()
            mapping()
            seconds.append(time.perf_counter() - begin)
        print(f"{name}, 64 × {variables} × {categories}: {1e3 * min(seconds):.2f} ms")
