"""Mixed categories through the step: value and gradients under their own q, by quadrature."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from estimators.distributions.gaussian_sparsemax import GaussianSparsemax as Simplex
from estimators.mixed.gaussian import GaussianSparsemax, LogisticNormal
from estimators.sampler import Sampler
from estimators.spaces.distribution import Distribution
from tests.estimators.contract import (
    ENTROPY_WEIGHTS,
    FEW_CATEGORIES,
    CostFunction,
    Problem,
    central_differences,
    network,
    quadratic,
    run,
)
from tests.estimators.distributions.test_gaussian_sparsemax import simplex

DRAWS = 100_000
LIMIT = stats.norm.isf(0.001 / (2 * 7 * 2 * 2 * 2))


def check_own_model(estimator: GaussianSparsemax | LogisticNormal, f: CostFunction) -> None:
    """Of three categories, over all faces of the simplex."""
    problem = Problem.random(FEW_CATEGORIES, seed=5)
    z, measure, faces = simplex()
    if isinstance(estimator, LogisticNormal):  # whose z lie within
        z, measure = z[faces[-1]], measure[faces[-1]]

    def value(scores: Tensor, theta: Tensor, weight: float) -> Tensor:
        log_q = estimator.distribution(scores[None]).log_prob(z[None])[0]
        p = measure * log_q.exp()
        return (p * (f(z.flatten(1), theta.expand(len(z), -1)) + weight * log_q)).sum()

    scores, theta = problem.scores, problem.theta
    for weight in ENTROPY_WEIGHTS:
        sampler = Sampler(torch.Generator().manual_seed(3))
        found = run(estimator, problem, f, sampler, DRAWS, entropy_weight=weight)
        of_scores = central_differences(lambda moved, w=weight: value(moved, theta, w), scores)
        of_theta = central_differences(lambda moved: value(scores, moved, 0.0), theta)
        for drawn, target in (
            (found.value[:, None], value(scores, theta, 0.0)[None]),
            (found.scores.flatten(1), of_scores.flatten()),
            (found.theta, of_theta),
        ):
            error = (drawn.mean(dim=0) - target).abs()
            assert (error <= LIMIT * drawn.std(dim=0) / DRAWS**0.5 + 1e-6).all()


@pytest.mark.parametrize("f", [quadratic, network], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", [GaussianSparsemax, LogisticNormal])
def test_the_mean_of_many_draws_is_that_of_its_own_model(
    kind: type[GaussianSparsemax | LogisticNormal], f: CostFunction
) -> None:
    check_own_model(kind.make(FEW_CATEGORIES), f)


class SameAtEveryStep(GaussianSparsemax):
    """The entropy is that of q by itself, whose samples are the same for a row at every step."""

    def combine(self, q, proposal, evaluated):  # type: ignore[no-untyped-def]
        assert isinstance(q, Simplex)
        first = {"of_entropy": q.sample(Sampler(torch.Generator().manual_seed(0)), 2)[:1]}
        proposal.extras["of_entropy"] = first["of_entropy"].expand(len(q.scores), -1, -1, -1)
        return super().combine(q, proposal, evaluated)


class Nearest(GaussianSparsemax):
    """The decoder sees the nearest vertex."""

    def relax(self, q: Distribution, sampler: Sampler) -> Tensor:
        z = super().relax(q, sampler)
        return self.space.point(z.argmax(dim=3), z.dtype) + z - z.detach()


@pytest.mark.parametrize("mutant", [SameAtEveryStep, Nearest])
def test_another_model_is_found(mutant: type[GaussianSparsemax]) -> None:
    with pytest.raises(AssertionError):
        check_own_model(mutant.make(FEW_CATEGORIES), network)
