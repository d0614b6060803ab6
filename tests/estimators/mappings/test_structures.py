"""SparseMAP of structures: large scores, both paths, and what the oracle is asked."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from estimators.mappings import (
    ActiveSetSolution,
    Oracle,
    best_bits,
    best_chain,
    sparsemap,
    structures,
)
from estimators.spaces import Subsets
from estimators.summed.sparse import SparseMAP
from tests.estimators.mappings.test_mappings import random_scores
from tests.estimators.mappings.test_oracles import all_chains, mixed_scores

SPACES = [Subsets(1, 5, 2), Subsets(2, 4, 2), Subsets(1, 7, 3), Subsets(2, 3, 1)]
PATHS: dict[str, Callable[[str], object]] = {
    "compiled": structures.compiled_loops,
    "whole-tensors": lambda module: None,
}


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structures, "compiled_loops", PATHS[request.param])


def oracle_of(space: Subsets) -> Oracle:
    return lambda scores: space.best(scores.view(-1, *space.scores_shape)).flatten(1)


def exact_gap(scores: Tensor, solution: ActiveSetSolution, every: Tensor) -> Fraction:
    """max_v ⟨s − μ, v − μ⟩ of one row in exact arithmetic, with probabilities that sum to one."""
    s = [Fraction(x) for x in scores.tolist()]
    p = [Fraction(x) for x in solution.probabilities[0].tolist()]
    used = [[int(x) for x in v] for v in solution.vertices[0].tolist()]
    mean = [sum(w * v[j] for w, v in zip(p, used, strict=True)) / sum(p) for j in range(len(s))]
    slope = [a - b for a, b in zip(s, mean, strict=True)]
    heights = [
        sum((d for d, on in zip(slope, v, strict=True) if on), Fraction(0)) for v in every.tolist()
    ]
    return max(heights) - sum(d * m for d, m in zip(slope, mean, strict=True))


@pytest.mark.parametrize("scale", [1, 30, 1e4])
@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.usefixtures("path")
def test_large_scores_are_solved_to_the_last_digits(space: Subsets, scale: float) -> None:
    """Both where they decide alone, and where what is small beside them decides."""
    scores = torch.cat([mixed_scores(12, space.size, scale), random_scores(12, space.size)])
    every = space.every(scores).flatten(1)
    for row in scores.split(1):
        solution = sparsemap(row, oracle_of(space))
        assert solution.converged.all()
        # A gap is some rounding of the scores, where the oracle sees no more of them.
        assert exact_gap(row[0], solution, every) <= 1e-14 * (10 + scale)
        nearest = space.nearest(row.view(1, *space.point_shape)).view_as(row)
        torch.testing.assert_close(solution.marginals, nearest, rtol=0, atol=2e-13)


@pytest.mark.parametrize("scale", [1, 30, 1e4])
@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_scores_of_float32_are_solved_to_theirs(space: Subsets, scale: float) -> None:
    scores = mixed_scores(200, space.size, scale).float()
    estimator = SparseMAP.make(space)
    q = estimator.distribution(scores.view(-1, *space.scores_shape))
    assert q.unsolved is not None
    assert not q.unsolved.any()
    nearest = space.nearest(q.scores.double())
    torch.testing.assert_close(q.marginals().double(), nearest, rtol=0, atol=3e-7)


@pytest.mark.parametrize("scale", [1, 1e4])
@pytest.mark.usefixtures("path")
def test_forbidden_parts_change_nothing_but_that(scale: float) -> None:
    """Of chains of four places, those that end where the third is: the rest stays at state 0."""
    length, states = 4, 3
    chains = all_chains(length, states)
    kept = chains[chains[:, 9] == 1]
    scores = mixed_scores(8, chains.shape[1], scale)
    forbidden = scores.masked_fill(kept.sum(dim=0) == 0, -1e9)
    solution = sparsemap(forbidden, best_chain(length, states))
    lowered = sparsemap(scores.masked_fill(kept.sum(dim=0) == 0, -1e3 * scale), best_chain(4, 3))
    assert solution.converged.all()
    torch.testing.assert_close(solution.marginals, lowered.marginals, rtol=0, atol=1e-14 * scale)
    for row in range(len(scores)):
        alone = ActiveSetSolution(*(part[row : row + 1] for part in solution))
        assert exact_gap(forbidden[row], alone, chains) <= 1e-13 * (10 + scale)


def as_sets(solution: ActiveSetSolution) -> list[dict[tuple[float, ...], float]]:
    """The vertices of each row with their probabilities."""
    pairs = zip(solution.vertices.flatten(2).tolist(), solution.probabilities.tolist(), strict=True)
    return [{tuple(v): round(p, 9) for v, p in zip(*row, strict=True) if p > 0} for row in pairs]


def both_paths(
    scores: Tensor, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[ActiveSetSolution, Tensor]]:
    """Solution, and the gradient of a random function of its vertices."""
    found = []
    for loops in PATHS.values():
        leaf = scores.clone().requires_grad_()
        with monkeypatch.context() as patched:
            patched.setattr(structures, "compiled_loops", loops)
            solution = sparsemap(leaf, oracle)
        cost = (
            (solution.vertices.flatten(2) * random_scores(1, scores.shape[1], 8)).sum(dim=2).sin()
        )
        (slope,) = torch.autograd.grad((solution.probabilities * cost).sum(), leaf)
        found.append((solution, slope))
    return found


@pytest.mark.parametrize("scale", [0.1, 1, 100])
@pytest.mark.parametrize(
    ("oracle", "size"),
    [
        (oracle_of(Subsets(1, 9, 4)), 9),
        (oracle_of(Subsets(3, 6, 2)), 18),
        (best_chain(4, 3), 39),
    ],
    ids=["subset", "subsets", "chain"],
)
def test_compiled_loops_take_the_steps_of_the_tensor_operations(
    oracle: Oracle, size: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, slope), (other, other_slope) = both_paths(
        random_scores(30, size, scale=scale), oracle, monkeypatch
    )
    assert as_sets(one) == as_sets(other)
    assert torch.equal(one.converged, other.converged)
    torch.testing.assert_close(slope, other_slope, rtol=1e-6, atol=1e-8)


@pytest.mark.usefixtures("path")
def test_vertices_that_tie_are_chosen_alike_next_to_them() -> None:
    """So that expectations are smooth: they tie again and again, whatever the scores."""
    space = Subsets(2, 6, 3)
    scores = random_scores(40, space.size, seed=3, scale=0.7)
    moved = scores + 1e-7 * random_scores(40, space.size, seed=4)
    sets = [as_sets(sparsemap(s, oracle_of(space))) for s in (scores, moved)]
    assert [set(row) for row in sets[0]] == [set(row) for row in sets[1]]


@pytest.mark.usefixtures("path")
def test_rows_that_are_done_are_asked_no_more() -> None:
    space = Subsets(2, 6, 3)
    scores = random_scores(6, space.size, scale=0.5) * torch.tensor([1e4, 1, 1e-3] * 2)[:, None]
    asked = []
    for rows in (scores, *scores.split(1)):
        before = space.oracle_calls
        sparsemap(rows, oracle_of(space))
        asked.append(space.oracle_calls - before)
    together, *alone = asked
    assert together == sum(alone)
    assert min(alone) == 3  # the best, and that it is, with the nudge and without
    assert max(alone) > 3 * min(alone)


@pytest.mark.usefixtures("path")
def test_a_row_that_has_not_converged_says_so() -> None:
    space = Subsets(1, 12, 6)
    scores = 0.1 * random_scores(4, space.size)
    for iterations in (0, 1, 3):
        solution = sparsemap(scores, oracle_of(space), max_iterations=iterations)
        nearest = space.nearest(scores[:, None]).flatten(1)
        assert not solution.converged.any()
        assert ((solution.marginals - nearest).norm(dim=1) <= solution.residual).all()
        assert (solution.residual > 1e-2).all()
        assert ((solution.probabilities > 0).sum(dim=1) <= 1 + iterations).all()


@pytest.mark.parametrize("tolerance", [1e-6, 1e-2, 0.2])
@pytest.mark.usefixtures("path")
def test_the_residual_bounds_the_error(tolerance: float) -> None:
    space = Subsets(3, 6, 3)
    scores = random_scores(30, space.size, scale=0.5)
    solution = sparsemap(scores, oracle_of(space), tolerance)
    nearest = space.nearest(scores.view(-1, *space.point_shape)).flatten(1)
    error = (solution.marginals - nearest).norm(dim=1)
    assert solution.converged.all()
    assert (solution.residual <= tolerance).all()
    assert (error <= solution.residual + 1e-12).all()
    if tolerance > 0.1:
        assert (error > tolerance / 100).any()


def test_more_vertices_than_there_was_room_for() -> None:
    """And more steps than R keeps its digits for."""
    space = Subsets(8, 12, 6)
    scores = 0.1 * random_scores(2, space.size)
    solution = sparsemap(scores, oracle_of(space))
    assert solution.converged.all()
    assert (solution.probabilities > 0).sum(dim=1).min() > 40
    nearest = space.nearest(scores.view(-1, *space.point_shape)).flatten(1)
    torch.testing.assert_close(solution.marginals, nearest, rtol=0, atol=1e-11)


@pytest.mark.usefixtures("path")
def test_vertices_may_have_any_number_of_ones() -> None:
    scores = torch.cat([-torch.ones(1, 9), torch.full((1, 9), 0.4)]).double()
    solution = sparsemap(scores, best_bits)
    torch.testing.assert_close(solution.marginals, scores.clamp(0, 1), rtol=0, atol=1e-9)


def test_no_rows_at_all() -> None:
    solution = sparsemap(torch.zeros(0, 4), oracle_of(Subsets(1, 4, 2)))
    assert solution.marginals.shape == (0, 4)
    assert solution.converged.shape == (0,)


def test_two_parts_of_scores_have_sums_that_are_exact() -> None:
    scores = mixed_scores(20, 64, 1e9) / 3
    coarse, fine = structures.in_two(scores)
    assert torch.equal(coarse + fine, scores)
    for row in range(20):
        exactly = sum(map(Fraction, coarse[row].tolist()), Fraction(0))
        assert Fraction(float(coarse[row].sum())) == exactly
    assert (fine.abs() < 1e-5).all()


def test_assignments_are_those_of_their_space() -> None:
    """As the oracle gives them, in the dtype of the scores."""
    space = Subsets(2, 4, 2)
    scores = random_scores(5, space.size, scale=0.5).float().view(5, 2, 4)
    q = SparseMAP.make(space).distribution(scores)
    z, row, p = q.support  # type: ignore[attr-defined]
    assert z.dtype == p.dtype == torch.float32
    assert z.shape[1:] == space.z_shape
    listed = [tuple(v.flatten().tolist()) for v in z]
    assert len({*zip(listed, row.tolist(), strict=True)}) == len(listed) > 10
    assert all((z == one).flatten(1).all(dim=1).any() for one in z)
    assert (z.sum(dim=2) == 2).all()
    assert row.unique().tolist() == [*range(5)]
