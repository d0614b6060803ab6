"""Concrete: the densities, and the KL that stands for that of the discrete distributions."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor

from estimators.base import Estimate, Evaluated, Proposal
from estimators.relaxed.concrete import Concrete
from estimators.relaxed.gumbel import GumbelSoftmax
from estimators.sampler import Sampler
from estimators.spaces import Bits, Categoricals, Space
from estimators.spaces.base import Factorised
from estimators.spaces.distribution import Distribution
from tests.estimators.contract import BITS, SEVERAL, Problem, central_differences, network, run
from tests.estimators.relaxed.test_relaxations import (
    BIT,
    NODES,
    PAIR,
    TEMPERATURE,
    Quadrature,
    log_odds,
)

PRIORS = (None, 0.4, 1.5)
DRAWS = 100_000


def numbers(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_densities_have_the_integral_one(temperature: float) -> None:
    """A bit's is a logistic one, and that of categories is normalised in all but one logit."""
    grid = torch.arange(-150, 150, 0.05, dtype=torch.float64)
    found = BIT.log_relaxed(grid[None, :, None], numbers([[[0.8]]]), temperature)[0]
    wanted = stats.logistic.logpdf(grid, loc=0.8 / temperature, scale=1 / temperature)
    torch.testing.assert_close(found, torch.from_numpy(wanted))

    step = 0.25
    one, two = torch.meshgrid(*[torch.arange(-120, 120, step).double()] * 2, indexing="ij")
    logits = torch.stack([one, two, torch.zeros_like(one)], dim=2).view(1, -1, 1, 3)
    scores = numbers([[[[0.5, -1.0, 0.3]]]])
    density = Categoricals(1, 3).log_relaxed(logits, scores, temperature).exp()
    assert float(density.sum() * step**2) == pytest.approx(1, abs=1e-6)


def test_two_categories_have_the_density_of_a_bit() -> None:
    logits, scores = torch.randn(7, 1, 2, 2).double(), torch.randn(7, 1, 2, 2).double()
    pairs = Categoricals(2, 2).log_relaxed(logits, scores, 0.6)
    apart = [t[..., 0] - t[..., 1] for t in (logits, scores)]
    torch.testing.assert_close(pairs, Bits(2).log_relaxed(*apart, 0.6))


def check_entropy(kind: type[Concrete], space: Space, prior: float | None) -> None:
    """Of one bit, by quadrature: the value, and the gradient that λ brings."""
    problem = Problem.random(space, seed=4)
    estimator = kind.make(space, initial=TEMPERATURE, prior_temperature=prior).double()

    def wanted(scores: Tensor) -> Tensor:
        at = float(log_odds(space, scores))

        def integrand(logit: float) -> float:
            log_q = stats.logistic.logpdf(logit, at / TEMPERATURE, 1 / TEMPERATURE)
            log_p = stats.logistic.logpdf(logit, 0, 1 / (prior or TEMPERATURE))
            return float(np.exp(log_q) * (log_p - log_q))

        value, _ = integrate.quad(integrand, -60, 60, epsabs=1e-10, limit=200, points=[0.0])
        return numbers(math.log(2) + value)

    q = estimator.distribution(problem.scores.expand(NODES, *space.scores_shape))
    proposal = estimator.propose(q, torch.zeros(NODES, 0), Quadrature())
    given = Evaluated(torch.zeros(NODES).double(), torch.zeros(NODES, *space.point_shape).double())
    entropy = estimator.combine(q, proposal, given).entropy
    assert entropy is not None
    torch.testing.assert_close(entropy.mean(), wanted(problem.scores), rtol=1e-4, atol=1e-4)
    assert entropy.mean() < q.entropy().mean()

    with_it, without = (
        run(estimator, problem, network, Quadrature(), NODES, entropy_weight=weight).scores
        for weight in (2.0, 0.0)
    )
    slope = central_differences(wanted, problem.scores, 1e-3)
    torch.testing.assert_close((without - with_it).mean(dim=0) / 2, slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("space", [BIT, PAIR], ids=repr)
def test_the_relaxed_divergence_is_exact_by_quadrature(space: Space, prior: float | None) -> None:
    check_entropy(Concrete, space, prior)


class OfTheDiscrete(Concrete):
    """The entropy of the discrete q."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        return super(Concrete, self).combine(q, proposal, evaluated)


class OfOtherScores(Concrete):
    """The sample is held, and the density of q is differentiated in its scores alone."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        held = proposal.extras | {"logits": proposal.extras["logits"].detach()}
        return super().combine(q, replace(proposal, extras=held), evaluated)


@pytest.mark.parametrize("mutant", [OfTheDiscrete, OfOtherScores])
def test_another_divergence_is_found(mutant: type[Concrete]) -> None:
    with pytest.raises(AssertionError):
        check_entropy(mutant, BIT, None)


def test_a_prior_at_the_temperature_of_the_sample_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Bits.log_relaxed
    monkeypatch.setattr(Bits, "log_relaxed", lambda self, y, s, at: right(self, y, s, TEMPERATURE))
    check_entropy(Concrete, BIT, None)
    with pytest.raises(AssertionError):
        check_entropy(Concrete, BIT, 1.5)


def divergence(scores: Tensor) -> Tensor:
    """KL to the uniform prior at the same temperature, of one variable of C categories.

    It is Σ_c s_c + C (E[log Σ_c exp(−s_c) E_c] − E[log Σ_c E_c]) with exponential E_c, where the
    first sum has a hypoexponential law and the second a gamma law.
    """
    size, rates = len(scores), scores.exp()
    apart = rates[None] / (rates[None] - rates[:, None] + torch.eye(size))
    weights = (apart - torch.diag_embed(apart.diagonal()) + torch.eye(size)).prod(dim=1)
    mean_log = -np.euler_gamma - (weights * scores).sum()
    return scores.sum() + size * (mean_log - special.digamma(size))


@pytest.mark.parametrize("space", [Categoricals(1, 2), Categoricals(2, 3), Categoricals(1, 5)])
def test_the_divergence_of_many_categories_is_exact(space: Space) -> None:
    """In the mean of many draws, of two samples each."""
    problem = Problem.random(space, seed=1)
    estimator = Concrete.make(space, initial=TEMPERATURE, samples=2)
    found = [
        run(
            estimator, problem, network, Sampler(torch.Generator().manual_seed(2)), DRAWS,
            entropy_weight=weight,
        ).scores
        for weight in (1.0, 0.0)
    ]  # fmt: skip
    slopes = (found[0] - found[1]).flatten(1)
    wanted = central_differences(
        lambda scores: torch.stack([divergence(s) for s in scores]).sum(), problem.scores
    ).flatten()
    noise = slopes.std(dim=0) / DRAWS**0.5
    assert ((slopes.mean(dim=0) - wanted).abs() < 4.5 * noise).all()


@pytest.mark.parametrize("space", [BITS, SEVERAL], ids=repr)
def test_without_the_entropy_it_is_gumbel(space: Space) -> None:
    """To the bit, whatever the temperature of the prior."""
    kinds: list[tuple[type[GumbelSoftmax], dict[str, Any]]] = [
        (GumbelSoftmax, {}), (Concrete, {}), (Concrete, {"prior_temperature": 0.5})
    ]  # fmt: skip
    one, *others = (
        run(
            kind.make(space, samples=2, **settings), Problem.random(space), network,
            Sampler(torch.Generator().manual_seed(0)), 20,
        )
        for kind, settings in kinds
    )  # fmt: skip
    for other in others:
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.value, other.value)
        assert torch.equal(one.theta, other.theta)


@pytest.mark.parametrize("space", [BITS, SEVERAL], ids=repr)
def test_extreme_scores_give_numbers_that_are_right(space: Factorised) -> None:
    """Single precision has those of double."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randn(50, *space.scores_shape, generator=generator, dtype=torch.float64).sign()
    noise = space.noise(signs, Sampler(generator), 1)

    class Fixed(Sampler):
        def logistic(self, like: Tensor, samples: int) -> Tensor:
            return noise.to(like.dtype)

        gumbel = logistic

    for scale in (30.0, 1e4):
        found = []
        for dtype in (torch.float64, torch.float32):
            scores = (scale * signs).to(dtype).requires_grad_()
            estimator = Concrete.make(space, initial=0.1, minimum=0.1, prior_temperature=0.4)
            q = estimator.distribution(scores)
            proposal = estimator.propose(q, torch.zeros(50, 0), Fixed())
            slopes = torch.zeros_like(proposal.z)
            entropy = estimator.combine(
                q, proposal, Evaluated(slopes.new_zeros(50), slopes)
            ).entropy
            assert entropy is not None
            found += [entropy.double(), torch.autograd.grad(entropy.sum(), scores)[0].double()]
        right, slope, rounded, rounded_slope = found
        torch.testing.assert_close(rounded, right, rtol=1e-5, atol=1e-5 * scale)
        torch.testing.assert_close(rounded_slope, slope, rtol=1e-5, atol=1e-5 * scale)
