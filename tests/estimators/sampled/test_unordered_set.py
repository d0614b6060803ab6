"""Draws without replacement, and the estimator that forgets their order."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from estimators.base import Evaluated
from estimators.sampled import unordered_set
from estimators.sampled.sum_and_sample import SumAndSample
from estimators.sampled.unordered_set import UnorderedSet, without_replacement
from estimators.sampler import Sampler
from estimators.spaces import Categoricals
from tests.estimators.contract import (
    FEW_BITS,
    Problem,
    check_expectation,
    draws_of_a_row,
    exact,
    network,
    run,
)
from tests.estimators.every_outcome import EveryOutcome


def in_order(p: list[float], order: tuple[int, ...]) -> float:
    """The probability that draws without replacement come in this order."""
    left = [1 - sum(p[z] for z in order[:count]) for count in range(len(order))]
    return math.prod(p[z] / rest for z, rest in zip(order, left, strict=True))


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_weights_are_averages_over_orders(samples: int) -> None:
    p = torch.randn(5, generator=torch.Generator().manual_seed(0)).double().softmax(dim=0)
    drawn, rest = p[:samples], p[samples:].sum()
    weight, after = unordered_set._chances(drawn[None], rest.view(1, 1))
    orders = [*itertools.permutations(range(samples))]
    chance = {order: in_order(p.tolist(), order) for order in orders}
    for s in range(samples):
        first = {order: one for order, one in chance.items() if order[0] == s}
        wanted = sum(first.values()) / sum(chance.values())
        assert weight[0, s].item() == pytest.approx(wanted)
        for t in set(range(samples)) - {s}:
            second = sum(one for order, one in first.items() if order[1] == t)
            share = (1 - p[s]) * second / sum(first.values())
            assert after[0, s, t].item() == pytest.approx(float(share))
        assert after[0, s, s] == p[s]
    torch.testing.assert_close(after.sum(dim=2), torch.ones_like(weight))


def estimates(space: Categoricals, samples: int) -> tuple[Tensor, Tensor]:
    """The gradient of each outcome, and the exact one."""
    problem, estimator = Problem.random(space), UnorderedSet.make(space, samples=samples).double()
    draws = draws_of_a_row(estimator, problem, network)
    dealer = EveryOutcome(draws)
    found = run(estimator, problem, network, dealer, math.prod(draws)).scores
    return found[dealer.weight > 0], exact(estimator, problem, network).scores


def test_with_every_assignment_it_is_the_exact_sum() -> None:
    found, wanted = estimates(Categoricals(1, 4), 4)
    torch.testing.assert_close(found, wanted.expand_as(found), rtol=1e-6, atol=1e-8)


def test_two_samples_have_a_closed_form() -> None:
    """(1 − p_a)(1 − p_b) / (2 − p_a − p_b) (f_a − f_b)(e_a − e_b)."""
    space = Categoricals(1, 5)
    estimator = UnorderedSet.make(space, samples=2).double()
    scores = Problem.random(space).scores[None].requires_grad_()
    q = estimator.distribution(scores)
    proposal = estimator.propose(q, torch.zeros(1, 0), Sampler(torch.Generator().manual_seed(0)))
    costs = torch.tensor([0.7, -1.3], dtype=torch.float64)
    surrogate = estimator.combine(q, proposal, Evaluated(costs)).surrogate
    assert surrogate is not None
    (found,) = torch.autograd.grad(surrogate.sum(), scores)
    p, z = scores.detach().softmax(dim=2)[0, 0], proposal.z[:, 0]
    point = torch.eye(5, dtype=torch.float64)[z]
    factor = (1 - p[z]).prod() / (2 - p[z].sum())
    torch.testing.assert_close(found[0, 0], factor * 2.0 * (point[0] - point[1]))


@pytest.mark.parametrize("scale", [30.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_that_is_certain_has_numbers(dtype: torch.dtype, scale: float) -> None:
    scores = torch.tensor([[[scale, 0, -scale, 1]]], dtype=dtype).expand(50, -1, -1).clone()
    scores.requires_grad_()
    for estimator in (
        UnorderedSet.make(Categoricals(1, 4), samples=3),
        SumAndSample.make(Categoricals(1, 4), k=2, summed="drawn"),
    ):
        q = estimator.to(dtype).distribution(scores)
        sampler = Sampler(torch.Generator().manual_seed(0))
        proposal = estimator.propose(q, torch.zeros(50, 0), sampler)
        z, weight = proposal.z.view(50, 3), proposal.decoder_weight
        assert weight is not None
        assert all(len(set(row)) == 3 for row in z.tolist())
        torch.testing.assert_close(weight.view(50, 3).sum(dim=1), torch.ones(50, dtype=dtype))
        surrogate = estimator.combine(q, proposal, Evaluated(torch.ones_like(weight))).surrogate
        assert surrogate is not None
        (gradient,) = torch.autograd.grad(surrogate.sum(), scores)
        assert (gradient.abs() < 1e-4).all()


def test_draws_are_distinct_and_have_the_law_of_orders() -> None:
    p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    rows = 40_000
    drawn = without_replacement(p.expand(rows, -1), 3, Sampler(torch.Generator().manual_seed(0)))
    for order in itertools.permutations(range(4), 3):
        share = (drawn == torch.tensor(order)).all(dim=1).double().mean().item()
        wanted = in_order(p.tolist(), order)
        assert abs(share - wanted) < 5 * (wanted / rows) ** 0.5


def test_a_set_that_is_weighted_by_probability_alone_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = unordered_set._chances

    def planted(p: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        return p / p.sum(dim=1, keepdim=True), real(p, rest)[1]

    monkeypatch.setattr(unordered_set, "_chances", planted)
    with pytest.raises(AssertionError):
        check_expectation(UnorderedSet.make(FEW_BITS, samples=2), Problem.random(FEW_BITS), network)
