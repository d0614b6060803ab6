"""Bounds on several samples: contract tests enumerate them; here are their numbers."""

import math

import pytest
import torch

from estimators.base import Evaluated
from estimators.sampled.multi_sample import OVIS, VIMCO, MultiSample
from estimators.sampler import Sampler
from estimators.spaces import Bits
from tests.estimators.contract import Problem, check_expectation, network

KINDS: list[type[MultiSample]] = [VIMCO, OVIS]


def signal_of(estimator: MultiSample, costs: list[float]) -> torch.Tensor:
    """What each sample's log q is multiplied by, in the gradient of the loss."""
    space = estimator.space
    q = estimator.distribution(torch.zeros(1, *space.scores_shape, requires_grad=True).double())
    log_q = torch.zeros(1, len(costs), dtype=torch.float64, requires_grad=True)
    q.log_prob = lambda z: log_q  # type: ignore[method-assign]
    sampler = Sampler(torch.Generator().manual_seed(0))
    proposal = estimator.propose(q, torch.zeros(1, 0), sampler)
    given = Evaluated(torch.tensor(costs, dtype=torch.float64))
    surrogate = estimator.combine(q, proposal, given).surrogate
    assert surrogate is not None
    (signal,) = torch.autograd.grad(surrogate.sum(), log_q)
    return signal[0]


def test_signals_are_those_of_their_formulas() -> None:
    costs = [0.3, -0.5, 1.1]
    w = [math.exp(-cost) for cost in costs]
    whole = math.log(sum(w) / 3)
    geometric = [math.sqrt(math.prod(w) / one) for one in w]
    arithmetic = [(sum(w) - one) / 2 for one in w]
    for estimator, own in (
        (VIMCO.make(Bits(1), samples=3), geometric),
        (VIMCO.make(Bits(1), samples=3, mean="arithmetic"), arithmetic),
        (OVIS.make(Bits(1), samples=3), [0.0, 0.0, 0.0]),
    ):
        without = [math.log((sum(w) - one + other) / 3) for one, other in zip(w, own, strict=True)]
        wanted = torch.tensor([one - whole for one in without], dtype=torch.float64)
        torch.testing.assert_close(signal_of(estimator, costs), wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e4, 1e300])
def test_costs_may_be_far_apart(kind: type[MultiSample], scale: float) -> None:
    signal = signal_of(kind.make(Bits(1), samples=3), [-scale, 0.0, scale])
    assert signal.isfinite().all()
    torch.testing.assert_close(signal[2], torch.zeros_like(signal[2]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bound_of_equal_costs_is_that_cost(kind: type[MultiSample]) -> None:
    estimator = kind.make(Bits(2), samples=4).double()
    q = estimator.distribution(torch.zeros(3, 2, dtype=torch.float64, requires_grad=True))
    proposal = estimator.propose(q, torch.zeros(3, 0), Sampler())
    estimate = estimator.combine(q, proposal, Evaluated(torch.full((12,), 7.0).double()))
    torch.testing.assert_close(estimate.objective, torch.full((3,), 7.0).double())
    assert estimate.decoder_weight is not None
    torch.testing.assert_close(estimate.decoder_weight, torch.full((12,), 0.25).double())


def test_a_baseline_with_the_own_weight_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VIMCO, "stand_in", lambda self, log_w: 0.5 * log_w)
    with pytest.raises(AssertionError):
        check_expectation(VIMCO.make(Bits(2), samples=2), Problem.random(Bits(2)), network)
