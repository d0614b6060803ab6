"""Mixed estimators through the step: value and gradients under their own q, by quadrature."""

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from estimators.distributions.mixed import MixedDistribution
from estimators.mixed.concrete import HardConcrete
from estimators.mixed.gaussian import GaussianSparsemax
from estimators.mixed.mixed import Mixed
from estimators.registry import all_estimators
from estimators.sampler import Sampler
from estimators.spaces.distribution import Distribution, FiniteDistribution
from tests.estimators.contract import (
    ENTROPY_WEIGHTS,
    FEW_BITS,
    CostFunction,
    Gradients,
    Problem,
    central_differences,
    network,
    quadratic,
    run,
)
from tests.estimators.faces import faces
from tests.estimators.small import small_settings

DRAWS = 40_000
CASES = [
    pytest.param(estimator, settings, id=f"{name}-{number}")
    for name, estimator in all_estimators().items()
    if issubclass(estimator, Mixed) and isinstance(FEW_BITS, estimator.spaces)
    for number, settings in enumerate(small_settings(estimator))
]
LIMIT = stats.norm.isf(0.001 / (2 * 5 * 2 * 2 * len(CASES)))
"""A z-score that all comparisons together exceed with a probability of at most 0.001."""


def by_quadrature(
    estimator: Mixed, problem: Problem, f: CostFunction, entropy_weight: float
) -> Gradients:
    """E_q[f] − λ H(q), over the faces of two bits, and gradients by central differences."""
    q = estimator.distribution(problem.scores[None])
    one, weight = faces(q, step=0.25, least=-80)
    z = torch.cartesian_prod(one, one)
    measure = torch.cartesian_prod(weight, weight).prod(dim=1)

    def value(scores: Tensor, theta: Tensor, weight: float) -> Tensor:
        q = estimator.distribution(scores[None])
        p = measure * q.log_prob(z[None])[0].exp()
        return (p * f(z, theta.expand(len(z), -1))).sum() - weight * q.entropy()[0]

    scores, theta = problem.scores, problem.theta
    return Gradients(
        value(scores, theta, 0.0),
        central_differences(lambda moved: value(moved, theta, entropy_weight), scores),
        central_differences(lambda moved: value(scores, moved, 0.0), theta),
    )


def check_own_model(estimator: Mixed, f: CostFunction) -> None:
    problem = Problem.random(FEW_BITS, seed=5)
    for weight in ENTROPY_WEIGHTS:
        wanted = by_quadrature(estimator, problem, f, weight)
        sampler = Sampler(torch.Generator().manual_seed(3))
        found = run(estimator, problem, f, sampler, DRAWS, entropy_weight=weight)
        for drawn, target in (
            (found.value[:, None], wanted.value[None]),
            (found.scores, wanted.scores),
            (found.theta, wanted.theta),
        ):
            error = (drawn.mean(dim=0) - target).abs()
            assert (error <= LIMIT * drawn.std(dim=0) / DRAWS**0.5 + 1e-6).all()


@pytest.mark.parametrize("f", [quadratic, network], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("estimator", "settings"), CASES)
def test_the_mean_of_many_draws_is_that_of_its_own_model(
    estimator: type[Mixed], settings: dict[str, Any], f: CostFunction
) -> None:
    check_own_model(estimator.make(FEW_BITS, **settings), f)


class Rounded(HardConcrete):
    """The decoder sees the nearest assignment."""

    def relax(self, q: Distribution, sampler: Sampler) -> Tensor:
        z = super().relax(q, sampler)
        return z.round().detach() + z - z.detach()


class WithoutGradient(GaussianSparsemax):
    """Between the atoms the noise alone moves z; the scores do not."""

    def relax(self, q: Distribution, sampler: Sampler) -> Tensor:
        z = super().relax(q, sampler)
        return z.detach() + 0 * z


@pytest.mark.parametrize("mutant", [Rounded, WithoutGradient])
def test_another_gradient_is_found(mutant: type[Mixed]) -> None:
    with pytest.raises(AssertionError):
        check_own_model(mutant.make(FEW_BITS), network)


@pytest.mark.parametrize(("estimator", "settings"), CASES)
def test_it_has_no_list_of_assignments_but_is_near_one(
    estimator: type[Mixed], settings: dict[str, Any]
) -> None:
    """The nearest ones have a law of their own, whose mode is that of q."""
    assert estimator.own_model
    q = estimator.make(FEW_BITS, **settings).distribution(torch.tensor([[3.0, -9.0]]).double())
    assert isinstance(q, MixedDistribution)
    assert not isinstance(q, FiniteDistribution)
    assert q.mode().tolist() == [[1.0, 0.0]]
    assert q.rounded().mode().tolist() == [[1.0, 0.0]]
    assert ((q.on_vertex() >= 0) & (q.on_vertex() <= 1)).all()
