"""The compiled loops of SparseMAP's active set against its whole-tensor operations."""

import sys

import pytest
import torch
from torch import Tensor

from estimators.mappings import SparseSolution, bit_sparsemap, kept, sparsemap_bits
from tests.estimators.mappings.test_mappings import check_solution, random_scores


def as_sets(solution: SparseSolution) -> list[dict[tuple[float, ...], float]]:
    """The vertices of each row with their probabilities."""
    pairs = zip(solution.vertices.tolist(), solution.probabilities.tolist(), strict=True)
    return [{tuple(v): round(p, 6) for v, p in zip(*row, strict=True) if p > 0} for row in pairs]


def both_paths(
    scores: Tensor, budget: int | None, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[SparseSolution, Tensor]]:
    """Solution and gradient by the compiled loops and by whole-tensor operations."""
    found = []
    for loops in (kept.compiled_loops, lambda module: None):
        leaf = scores.clone().requires_grad_()
        with monkeypatch.context() as patched:
            patched.setattr(bit_sparsemap, "compiled_loops", loops)
            solution = sparsemap_bits(leaf, budget)
        mean = torch.einsum("bm,bmd->bd", solution.probabilities, solution.vertices)
        weight = torch.linspace(-1, 1, mean.numel(), dtype=mean.dtype).view_as(mean)
        found.append((solution, torch.autograd.grad((weight * mean).sum(), leaf)[0]))
    return found


@pytest.mark.parametrize("size", [1, 2, 5, 32, 100])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("share", [None, 0.25, 0.5])
def test_compiled_loops_take_the_steps_of_the_tensor_operations(
    size: int, scale: float, share: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = 0.2 + random_scores(30, size, scale=scale)
    budget = None if share is None else max(1, int(share * size))
    (one, slope), (other, other_slope) = both_paths(scores, budget, monkeypatch)
    assert as_sets(one) == as_sets(other)
    torch.testing.assert_close(slope, other_slope, rtol=1e-6, atol=1e-8)
    assert torch.equal(one.truncated, other.truncated)


@pytest.mark.parametrize("budget", [None, 0, 2, 6])
def test_both_paths_are_right_where_scores_tie(
    budget: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = torch.tensor([-1e4, -1, -0.5, 0, 0.5, 1, 1e4], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    scores = levels[torch.randint(len(levels), (200, 6), generator=generator)]
    for solution, _ in both_paths(scores, budget, monkeypatch):
        check_solution(solution, budget)


def test_compiled_code_holds_no_number_of_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which it would keep when that file changes: a threshold that no vertex passes is heeded."""
    scores = random_scores(5, 8, scale=0.5)
    assert (sparsemap_bits(scores).probabilities > 0).sum(dim=1).min() > 2
    monkeypatch.setattr("estimators.mappings.compiled.bits.DEPENDENT", 2.0)
    assert ((sparsemap_bits(scores).probabilities > 0).sum(dim=1) == 1).all()


def test_more_vertices_than_there_was_room_for() -> None:
    solution = sparsemap_bits(0.1 * random_scores(2, 200), tolerance=1e-12)
    assert (solution.probabilities > 0).sum(dim=1).max() > 64
    check_solution(solution, None, 1e-12)


def test_without_numba_it_runs_and_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "estimators.mappings.compiled.bits", None)
    kept.compiled_loops.cache_clear()
    with pytest.warns(UserWarning, match="numba is not installed"):
        solution = sparsemap_bits(random_scores(3, 4))
    check_solution(solution, None)
    kept.compiled_loops.cache_clear()
