"""A budget of bits at scores of any size: against exact arithmetic."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from estimators.mappings import (
    Parametrisation,
    bit_marginals,
    sparsemap_bits,
    subset_marginals,
)
from tests.estimators.mappings.test_mappings import SOLVERS, random_scores

ROUNDING = 2e-10
"""Of a score of 10⁶ in float64; marginals in float32 have its own besides."""


def exact_marginals(shifted: list[Fraction], budget: int) -> list[Fraction]:
    """clip(s − τ, 0, 1) with the least τ ≥ 0 that keeps to the budget."""

    def at(tau: Fraction) -> list[Fraction]:
        return [min(max(s - tau, Fraction(0)), Fraction(1)) for s in shifted]

    kinks = sorted({Fraction(0), *shifted, *(s - 1 for s in shifted)})
    kinks = [kink for kink in kinks if kink >= 0]
    if sum(at(kinks[0])) <= budget:
        return at(kinks[0])
    last = max(kink for kink in kinks if sum(at(kink)) > budget)
    after = min(kink for kink in kinks if sum(at(kink)) <= budget)
    high, low = sum(at(last)), sum(at(after))  # linear in between
    return at(last + (after - last) * (high - budget) / (high - low))


MAGNITUDES = st.sampled_from([0.0, 1.0, 1e3, 1e4, 1e5, 1e6])


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 10),
    budget=st.integers(0, 10),
    scale=MAGNITUDES,
    offset=MAGNITUDES,
    ties=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    parametrisation=st.sampled_from(["pairs", "single"]),
    seed=st.integers(0, 10**6),
)
def test_marginals_are_exact_at_any_magnitude(
    size: int,
    budget: int,
    scale: float,
    offset: float,
    ties: bool,
    dtype: torch.dtype,
    parametrisation: Parametrisation,
    seed: int,
) -> None:
    scores = random_scores(1, size, seed, scale)
    scores = ((scores.round() if ties else scores) + offset).to(dtype)
    eta = [Fraction(score) for score in scores[0].tolist()]
    shifted = [(1 + score) / 2 for score in eta] if parametrisation == "pairs" else eta
    exact = [float(m) for m in exact_marginals(shifted, budget)]
    wanted = torch.tensor([exact], dtype=torch.float64)
    found = bit_marginals(scores, budget, parametrisation).double()
    room = ROUNDING + torch.finfo(dtype).eps
    torch.testing.assert_close(found, wanted, rtol=0, atol=room)
    assert found.sum() <= budget + size * room
    for solver in SOLVERS:
        solution = sparsemap_bits(scores, budget, parametrisation, solver)
        vertices = solution.vertices[0][solution.probabilities[0] > 0]
        assert vertices.sum(dim=1).max() <= budget
        assert solution.residual <= 1e-6
        mean = torch.einsum("bm,bmd->bd", solution.probabilities, solution.vertices)
        torch.testing.assert_close(mean.double(), wanted, rtol=0, atol=2e-6)


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 10),
    chosen=st.integers(1, 10),
    scale=MAGNITUDES,
    offset=MAGNITUDES,
    ties=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 10**6),
)
def test_marginals_of_subsets_are_exact_at_any_magnitude(
    size: int,
    chosen: int,
    scale: float,
    offset: float,
    ties: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    """A level where all bits would be on makes the budget bind, and makes no other difference."""
    chosen = min(chosen, size)
    scores = random_scores(1, size, seed, scale)
    scores = ((scores.round() if ties else scores) - offset).to(dtype)
    eta = [Fraction(score) for score in scores[0].tolist()]
    exact = [float(m) for m in exact_marginals([s - min(eta) + 1 for s in eta], chosen)]
    found = subset_marginals(scores, chosen).double()[0]
    room = ROUNDING + torch.finfo(dtype).eps
    torch.testing.assert_close(found, torch.tensor(exact, dtype=torch.float64), rtol=0, atol=room)
    assert float(found.sum()) == pytest.approx(chosen, abs=size * room)


def test_subsets_of_too_many_bits_or_of_none_have_no_marginals() -> None:
    for chosen in (0, 5):
        with pytest.raises(ValueError, match="take 1 to all"):
            subset_marginals(torch.zeros(1, 4), chosen)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e4, 1e5, 1e6])
@pytest.mark.parametrize("parametrisation", ["pairs", "single"])
def test_many_bits_with_a_common_offset_keep_to_the_budget(
    offset: float, parametrisation: Parametrisation
) -> None:
    scores = random_scores(20, 128) + offset
    for s in (scores.float(), scores):
        found = bit_marginals(s, 64, parametrisation)
        assert (found.double().sum(dim=1) <= 64 + 128 * torch.finfo(s.dtype).eps).all()
        solution = sparsemap_bits(s, 64, parametrisation, "closed-form")
        on = solution.vertices.sum(dim=2)[solution.probabilities > 0]
        assert on.max() <= 64


def gradient(scores: Tensor) -> Tensor:
    scores = scores.clone().requires_grad_()
    weight = random_scores(*scores.shape, seed=1)
    (found,) = torch.autograd.grad((bit_marginals(scores, 3) * weight).sum(), scores)
    return found


def test_a_common_offset_changes_no_derivative() -> None:
    scores = (8 * random_scores(20, 8, seed=2)).round() / 16 + 2  # the offset is added exactly
    torch.testing.assert_close(gradient(scores), gradient(scores + 2.0**20))
