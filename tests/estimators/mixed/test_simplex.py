"""Mixed categories through the step: value and gradients under their own q, by quadrature."""

from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from estimators.distributions.gaussian_sparsemax import GaussianSparsemax as Simplex
from estimators.mixed.dirichlet import MixedDirichlet
from estimators.mixed.gaussian import GaussianSparsemax, LogisticNormal
from estimators.mixed.mixed import Mixed
from estimators.sampler import Sampler
from estimators.spaces import Categoricals
from estimators.spaces.distribution import Distribution
from tests.estimators.contract import (
    ENTROPY_WEIGHTS,
    FEW_CATEGORIES,
    CostFunction,
    Problem,
    central_differences,
    linear,
    network,
    quadratic,
    run,
)
from tests.estimators.distributions import test_mixed_dirichlet
from tests.estimators.distributions.test_gaussian_sparsemax import simplex

DRAWS = 40_000


def squares(point: Tensor, theta: Tensor) -> Tensor:
    return linear(point.square(), theta)


TWO = Categoricals(1, 2)
CASES = [
    (kind, FEW_CATEGORIES, f)
    for kind in (GaussianSparsemax, LogisticNormal, MixedDirichlet)
    for f in (quadratic, network)
]
CASES += [(MixedDirichlet, TWO, f) for f in (linear, squares, network)]
LIMIT = stats.norm.isf(0.001 / (2 * 7 * 2 * len(CASES)))


def points(estimator: Mixed) -> tuple[Tensor, Tensor]:
    """Of the faces that z may be on, and their weights."""
    if isinstance(estimator, MixedDirichlet):
        return test_mixed_dirichlet.simplex(estimator.space.size)
    z, measure, faces = simplex()
    within = faces[-1] if isinstance(estimator, LogisticNormal) else slice(None)
    return z[within], measure[within]


def check_own_model(estimator: Mixed, f: CostFunction) -> None:
    """Of two or three categories, over all faces of the simplex."""
    problem = Problem.random(estimator.space, seed=5)
    z, measure = points(estimator)

    def value(scores: Tensor, theta: Tensor, weight: float) -> Tensor:
        log_q = estimator.distribution(scores[None]).log_prob(z[None])[0]
        p = measure * log_q.exp()
        return (p * (f(z.flatten(1), theta.expand(len(z), -1)) + weight * log_q)).sum()

    scores, theta = problem.scores, problem.theta
    exact = isinstance(estimator, MixedDirichlet)  # in its entropy, which takes long
    draws = DRAWS // 3 if exact else DRAWS
    for weight in ENTROPY_WEIGHTS[exact:]:
        sampler = Sampler(torch.Generator().manual_seed(3))
        found = run(estimator, problem, f, sampler, draws, entropy_weight=weight)
        of_scores = central_differences(lambda moved, w=weight: value(moved, theta, w), scores)
        of_theta = central_differences(lambda moved: value(scores, moved, 0.0), theta)
        for drawn, target in (
            (found.value[:, None], value(scores, theta, 0.0)[None]),
            (found.scores.flatten(1), of_scores.flatten()),
            (found.theta, of_theta),
        ):
            error = (drawn.mean(dim=0) - target).abs()
            assert (error <= LIMIT * drawn.std(dim=0) / draws**0.5 + 1e-6).all()


@pytest.mark.parametrize(("kind", "space", "f"), CASES)
def test_the_mean_of_many_draws_is_that_of_its_own_model(
    kind: type[Mixed], space: Categoricals, f: CostFunction
) -> None:
    check_own_model(kind.make(space), f)


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


class OwnBaseline(MixedDirichlet):
    """The mean that is taken off has the sample's own cost in it."""

    def combine(self, q, proposal, evaluated):  # type: ignore[no-untyped-def]
        estimate = super().combine(q, proposal, evaluated)
        z, costs = proposal.extras["z"].detach(), evaluated.costs.view(len(q.scores), -1)
        away = (costs - costs.mean(dim=1, keepdim=True)) / z.shape[1]
        return replace(estimate, surrogate=estimate.surrogate - (away * q.log_face(z)).sum(dim=1))


class OfItsFace(MixedDirichlet):
    """The slope alone, as if the scores did not move the face."""

    def combine(self, q, proposal, evaluated):  # type: ignore[no-untyped-def]
        return super(MixedDirichlet, self).combine(q, proposal, evaluated)


class FaceAlone(MixedDirichlet):
    """The face alone, as if the scores did not move the point on it."""

    def relax(self, q: Distribution, sampler: Sampler) -> Tensor:
        z = super().relax(q, sampler)
        return z.detach() + 0 * z


@pytest.mark.parametrize("mutant", [SameAtEveryStep, Nearest, OwnBaseline, OfItsFace, FaceAlone])
def test_another_model_is_found(mutant: type[Mixed]) -> None:
    with pytest.raises(AssertionError):
        check_own_model(mutant.make(FEW_CATEGORIES), network)
