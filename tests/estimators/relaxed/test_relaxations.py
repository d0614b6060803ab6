"""Relaxations where they are exact: quadrature, and straight-through's value and decoder."""

from collections.abc import Callable

import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from estimators.base import Estimator
from estimators.relaxed.gumbel import GumbelRao, GumbelSoftmax, StraightThroughGumbel
from estimators.sampler import Sampler
from estimators.spaces import Bits, Categoricals, Space
from tests.estimators.contract import (
    BITS,
    CATEGORICAL,
    COSTS,
    CostFunction,
    Problem,
    central_differences,
    exact,
    run,
)

NODES = 200_000
TEMPERATURE = 0.7
PAIR = Categoricals(1, 2)
BIT = Bits(1)


class Quadrature(Sampler):
    """Deals the midpoints of NODES equal slices of the noise's distribution to the rows."""

    def __init__(self) -> None:
        super().__init__()
        u = (torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES
        self.noise = u.logit()

    def logistic(self, like: Tensor, samples: int) -> Tensor:
        assert samples == 1
        return self.noise[:, None, None]

    def gumbel(self, like: Tensor, samples: int) -> Tensor:
        """Of two Gumbel variables only the difference matters, which is logistic."""
        assert samples == 1
        return torch.stack([self.noise, torch.zeros_like(self.noise)], dim=1)[:, None, None, :]


def integral(f: Callable[[float], float], breakpoint_at: float) -> float:
    """E[f(L)] for standard logistic L, with f smooth on either side of a breakpoint."""

    def weighted(noise: float) -> float:
        return f(noise) * float(stats.logistic.pdf(noise))

    below, _ = integrate.quad(weighted, -40, breakpoint_at, epsabs=1e-10)
    above, _ = integrate.quad(weighted, breakpoint_at, 40, epsabs=1e-10)
    return float(below + above)


def point_of(space: Space, share: Tensor) -> Tensor:
    """The relaxed point (1, P) with a share in [0, 1] on the bit, or on the first category."""
    return torch.stack([share, 1 - share])[None] if space == PAIR else share.view(1, 1)


def log_odds(space: Space, scores: Tensor) -> Tensor:
    return scores[0, 0] - scores[0, 1] if space == PAIR else scores[0]


def soft_share(space: Space, scores: Tensor, noise: float) -> Tensor:
    return ((log_odds(space, scores) + noise) / TEMPERATURE).sigmoid()


@pytest.mark.parametrize("f", COSTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("space", [PAIR, BIT], ids=repr)
def test_gumbel_is_exact_for_the_relaxed_cost(space: Space, f: CostFunction) -> None:
    problem = Problem.random(space, seed=4)
    estimator = GumbelSoftmax.make(space, initial=TEMPERATURE)
    found = run(estimator, problem, f, Quadrature(), NODES)

    def relaxed(scores: Tensor, theta: Tensor) -> Tensor:
        def cost(noise: float) -> float:
            return float(f(point_of(space, soft_share(space, scores, noise)), theta[None]))

        return torch.tensor(integral(cost, 0.0), dtype=torch.float64)

    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found.value.mean(), relaxed(problem.scores, problem.theta), **close)
    for name, gradient in (
        ("scores", central_differences(lambda s: relaxed(s, problem.theta), problem.scores, 1e-3)),
        ("theta", central_differences(lambda t: relaxed(problem.scores, t), problem.theta, 1e-3)),
    ):
        torch.testing.assert_close(getattr(found, name).mean(dim=0), gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("f", COSTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("space", [PAIR, BIT], ids=repr)
def test_straight_through_scores_gradient(space: Space, f: CostFunction) -> None:
    """E[∂f/∂z at the vertex · ∂(relaxed z)/∂scores], by quadrature on either side of the switch."""
    problem = Problem.random(space, seed=4)
    found = run(
        StraightThroughGumbel.make(space, initial=TEMPERATURE), problem, f, Quadrature(), NODES
    )
    switch = -float(log_odds(space, problem.scores))
    slopes = {}
    for on in (0.0, 1.0):
        share = torch.tensor(on, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(f(point_of(space, share), problem.theta[None]).sum(), share)
        slopes[on] = float(slope)

    def integrand(noise: float) -> float:
        share = float(soft_share(space, problem.scores, noise))
        return slopes[float(noise > switch)] * share * (1 - share) / TEMPERATURE

    wanted = integral(integrand, switch)
    gradient = [[wanted, -wanted]] if space == PAIR else [wanted]
    torch.testing.assert_close(
        found.scores.mean(dim=0), torch.tensor(gradient, dtype=torch.float64), rtol=1e-4, atol=1e-4
    )


def check_samples(estimator: Estimator) -> None:
    """Value and decoder gradient are unbiased: the points are samples of q."""
    draws, space = 100_000, estimator.space
    problem = Problem.random(space, seed=6)
    for f in COSTS:
        wanted = exact(estimator, problem, f)
        found = run(estimator, problem, f, Sampler(torch.Generator().manual_seed(8)), draws)
        limit = stats.norm.isf(0.001 / (2 * len(COSTS) * (1 + space.size)))
        for drawn, target in ((found.value[:, None], wanted.value), (found.theta, wanted.theta)):
            error = (drawn.mean(dim=0) - target).abs()
            assert (error <= limit * drawn.std(dim=0) / draws**0.5 + 1e-9).all()


@pytest.mark.parametrize("space", [CATEGORICAL, BITS], ids=repr)
@pytest.mark.parametrize("kind", [StraightThroughGumbel, GumbelRao])
def test_straight_through_samples_q(kind: type[StraightThroughGumbel], space: Space) -> None:
    check_samples(kind.make(space, initial=TEMPERATURE))


def test_temperature_falls_in_steps_to_its_minimum() -> None:
    estimator = GumbelSoftmax.make(PAIR, initial=1.0, minimum=0.5, rate=1e-3, every=100)
    seen = []
    for step in (0, 99, 100, 250, 10_000):
        estimator.step.fill_(step)
        seen.append(estimator.temperature)
    e = torch.tensor([-0.1, -0.2], dtype=torch.float64).exp().tolist()
    assert seen == pytest.approx([1.0, 1.0, e[0], e[1], 0.5])
