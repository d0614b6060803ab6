"""Weighted maximum likelihood: what it tends to, and the temperature that it learns."""

import itertools
import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from estimators.base import Evaluated
from estimators.sampled.other_assignments import LeaveOneOut
from estimators.sampled.weighted import DAPS, effective_share
from estimators.sampler import Sampler
from estimators.spaces import Space
from tests.estimators.contract import (
    FEW_BITS,
    FEW_CATEGORIES,
    FEW_SEVERAL,
    Problem,
    draws_of_a_row,
    exact,
    expectation,
    network,
    run,
)
from tests.estimators.every_outcome import EveryOutcome

SPACES = [FEW_BITS, FEW_CATEGORIES, FEW_SEVERAL]


def numbers(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def at(temperature: float, space: Space, **settings: float) -> DAPS:
    estimator = DAPS.make(space, **settings).double()
    estimator.log_temperature.fill_(math.log(temperature))
    return estimator


def outcomes(estimator: DAPS | LeaveOneOut, problem: Problem) -> tuple[Tensor, Tensor]:
    """The probability of each outcome, and its estimate for the scores, with log q in the costs."""
    draws = draws_of_a_row(estimator, problem, network)
    dealer = EveryOutcome(draws)
    found = run(estimator, problem, network, dealer, math.prod(draws), entropy_weight=1.0)
    return dealer.weight, found.scores


@pytest.mark.parametrize("samples", [2, 3])
@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_hot_it_is_leave_one_out_draw_by_draw(space: Space, samples: int) -> None:
    """But for 1 − 1/K; so that its mean is then the exact gradient, times that."""
    problem = Problem.random(space)
    _, found = outcomes(at(1e7, space, samples=samples), problem)
    _, wanted = outcomes(
        LeaveOneOut.make(space, samples=samples, entropy="sampled").double(), problem
    )
    share = 1 - 1 / samples
    torch.testing.assert_close(found, share * wanted, rtol=1e-5, atol=1e-6)
    estimator = at(1e7, space, samples=samples)
    mean = expectation(estimator, problem, network, entropy_weight=1.0)
    right = exact(estimator, problem, network, 1.0)
    torch.testing.assert_close(mean.scores, share * right.scores, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mean.value, right.value)
    torch.testing.assert_close(mean.theta, right.theta, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_its_mean_is_that_of_the_weighted_likelihood(space: Space, temperature: float) -> None:
    """−T Σ_k w_k ∇ log q(z_k), written out over all triples, without anything taken off."""
    problem, estimator = Problem.random(space), at(temperature, space, samples=3)
    z = problem.assignments()
    leaf = problem.scores.clone().requires_grad_()
    log_q = space.plain(leaf[None]).log_prob(z[None])[0]
    slopes = torch.stack(
        [torch.autograd.grad(one, leaf, retain_graph=True)[0] for one in log_q.unbind()]
    )
    log_q = log_q.detach()
    costs = network(problem.point(z), problem.theta.expand(len(z), -1)) + log_q
    wanted = torch.zeros_like(problem.scores)
    for chosen in itertools.product(range(len(z)), repeat=3):
        exponentials = [math.exp(-float(costs[k]) / temperature) for k in chosen]
        for k, one in zip(chosen, exponentials, strict=True):
            weight = one / sum(exponentials)
            wanted -= temperature * weight * log_q[list(chosen)].sum().exp() * slopes[k]
    found = expectation(estimator, problem, network, entropy_weight=1.0)
    torch.testing.assert_close(found.scores, wanted)


def signal_of(estimator: DAPS, costs: Tensor) -> Tensor:
    """What each sample's log q is multiplied by, in the gradient of the loss, (B, K)."""
    rows = len(costs)
    q = estimator.distribution(torch.zeros(rows, *estimator.space.scores_shape).double())
    log_q = torch.zeros_like(costs).requires_grad_()
    q.log_prob = lambda z: log_q  # type: ignore[method-assign]
    proposal = estimator.propose(q, torch.zeros(rows, 0), Sampler())
    surrogate = estimator.combine(q, proposal, Evaluated(costs.flatten())).surrogate
    assert surrogate is not None
    (signal,) = torch.autograd.grad(surrogate.sum(), log_q)
    return signal


def test_cold_the_best_sample_is_all_that_counts() -> None:
    signal = signal_of(at(1e-3, FEW_BITS, samples=4), numbers([[3.0, -1.0, 0.0, 5.0]]))
    torch.testing.assert_close(signal / 1e-3, numbers([[0.25, -0.75, 0.25, 0.25]]))


def test_it_is_measured_in_what_costs_are_measured_in() -> None:
    costs = numbers([[3.0, -1.0, 0.0, 5.0], [2.0, 2.5, 2.0, 0.0]])
    one, thousand = (signal_of(at(2 * by, FEW_BITS), by * costs + 7) for by in (1.0, 1000.0))
    torch.testing.assert_close(thousand, 1000 * one)


@pytest.mark.parametrize("scale", [1e4, 1e300])
def test_costs_may_be_far_apart(scale: float) -> None:
    signal = signal_of(at(1.0, FEW_BITS, samples=3), numbers([[-scale, 0.0, scale]]))
    torch.testing.assert_close(signal, numbers([[-2 / 3, 1 / 3, 1 / 3]]))


def step_of(estimator: DAPS, costs: Tensor) -> float:
    """The share of samples that is effective in rows of costs, before the temperature moves."""
    rows = costs.view(-1, estimator.settings.samples)
    q = estimator.distribution(rows.new_zeros(len(rows), *estimator.space.scores_shape))
    proposal = estimator.propose(q, rows.new_zeros(len(rows), 0), Sampler())
    estimate = estimator.combine(q, proposal, Evaluated(costs))
    estimator.update(proposal, Evaluated(costs), estimate)
    return float(estimate.diagnostics["effective"])


def test_equal_costs_have_no_gradient_and_move_nothing() -> None:
    """Half of the rows have none: the target is met by the others, as if there were no more."""
    generator = torch.Generator().manual_seed(0)
    among, alone = (DAPS.make(FEW_BITS).double() for _ in range(2))
    for _ in range(300):
        costs = torch.randn(32, 4, generator=generator, dtype=torch.float64)
        equal = torch.full((32, 4), 1e3, dtype=torch.float64)
        step_of(alone, costs.flatten())
        step_of(among, torch.cat([costs, equal]).flatten())
        step_of(among, equal.flatten())
    torch.testing.assert_close(among.log_temperature, alone.log_temperature)
    assert (signal_of(among, torch.full((2, 4), 7.0).double()) == 0).all()


def test_what_is_effective_is_the_inverse_sum_of_squares() -> None:
    """Of rows with 1, 2 and 4 of 4 samples, all alike, but for the last."""
    weights = numbers([[1, 0, 0, 0], [0.5, 0, 0.5, 0], [0.25, 0.25, 0.25, 0.25]])
    every, two = torch.ones(3, dtype=torch.bool), torch.tensor([True, True, False])
    assert float(effective_share(weights, every, 0)) == pytest.approx((1 + 2 + 4) / 12)
    assert float(effective_share(weights, two, 0)) == pytest.approx((1 + 2) / 8)
    assert float(effective_share(weights, ~every, 0.7)) == pytest.approx(0.7)


def test_the_temperature_moves_by_what_is_missing() -> None:
    """Two weights in the ratio 3 : 1, of which 1.6 are effective."""
    estimator = DAPS.make(FEW_BITS, samples=2, effective=0.9, rate=0.5).double()
    assert step_of(estimator, numbers([0.0, math.log(3)])) == pytest.approx(0.8)
    assert float(estimator.log_temperature) == pytest.approx(0.5 * (0.9 - 0.8))


@pytest.mark.parametrize("target", [0.4, 0.7, 0.9])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 300.0])
def test_the_target_is_met(target: float, scale: float) -> None:
    estimator = DAPS.make(FEW_BITS, effective=target).double()
    generator = torch.Generator().manual_seed(0)
    shares = [
        step_of(estimator, scale * torch.randn(32 * 4, generator=generator, dtype=torch.float64))
        for _ in range(300)
    ]
    assert sum(shares[150:]) / 150 == pytest.approx(target, abs=0.02)


def test_a_target_that_is_always_met_is_refused() -> None:
    with pytest.raises(ValidationError, match="of 2 samples is not above one"):
        DAPS.make(FEW_BITS, samples=2, effective=0.5)
    DAPS.make(FEW_BITS, samples=3, effective=0.5)
