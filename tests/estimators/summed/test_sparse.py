"""Estimators over sparse bit-vectors have the mapping of their settings."""

from typing import Any, cast

import pytest
import torch

from estimators.distributions.sparse import SparseDistribution
from estimators.mappings import sparsemap_bits, topk_sparsemax
from estimators.spaces import Bits
from estimators.spaces.distribution import Distribution, FiniteDistribution
from estimators.summed.sparse import SparseMAP, SparseMAPBudget, TopKSparsemax
from estimators.summed.support_sum import Sparsemax
from tests.estimators.mappings.test_mappings import random_scores

SIZE = 8
SPACE = Bits(SIZE)
SCORES = 0.5 + random_scores(5, SIZE)


def same(one: Distribution, other: Distribution) -> bool:
    assert isinstance(one, FiniteDistribution)
    assert isinstance(other, FiniteDistribution)
    return all(
        a.shape == b.shape and torch.equal(a, b)
        for a, b in zip(one.support, other.support, strict=True)
    )


def sparsemap_of(budget: int | None, **settings: Any) -> SparseDistribution:
    solution = sparsemap_bits(SCORES, budget, **settings)
    return SparseDistribution(SPACE, SCORES, solution.vertices, solution.probabilities)


@pytest.mark.parametrize(("estimator", "budget"), [(SparseMAP, None), (SparseMAPBudget, SIZE // 2)])
def test_sparsemap_is_that_of_its_settings(estimator: type[SparseMAP], budget: int | None) -> None:
    default = sparsemap_of(budget)
    assert same(estimator.make(SPACE).distribution(SCORES), default)
    for settings in (
        {"parametrisation": "single"},
        {"solver": "closed-form"},
        {"tolerance": 0.3},
        {"parametrisation": "single", "solver": "closed-form"},
    ):
        wanted = sparsemap_of(budget, **settings)
        assert same(estimator.make(SPACE, **settings).distribution(SCORES), wanted)
        assert not same(wanted, default)
    other = sparsemap_of(SIZE // 2 if budget is None else None)
    assert not same(other, default)


@pytest.mark.parametrize("k", [2, 5, 10])
def test_top_k_is_that_of_its_k(k: int) -> None:
    scores = 0.1 * SCORES
    vertices, probabilities, _ = topk_sparsemax(scores, k)
    q = cast(FiniteDistribution, TopKSparsemax.make(SPACE, k=k).distribution(scores))
    assert same(q, SparseDistribution(SPACE, scores, vertices, probabilities))
    assert (q.support_sizes == k).any()


def test_sparsemax_of_bits_is_over_all_of_them() -> None:
    scores = 1e-3 * SCORES[:, :4]
    vertices, probabilities, _ = topk_sparsemax(scores, 16)
    q = cast(FiniteDistribution, Sparsemax.make(Bits(4)).distribution(scores))
    assert same(q, SparseDistribution(Bits(4), scores, vertices, probabilities))
    assert (q.support_sizes == 16).all()


@pytest.mark.parametrize(("size", "budget"), [(1, 1), (2, 1), (3, 1), (7, 3), (8, 4)])
def test_the_budget_is_half_of_the_bits_and_one_at_least(size: int, budget: int) -> None:
    assert SparseMAPBudget.make(Bits(size)).budget == budget
