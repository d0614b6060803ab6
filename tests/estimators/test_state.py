"""What an estimator learns from its batches: its estimate is unbiased with any state, so that no
expectation sees a wrong one."""

import math

import pytest
import torch
from torch import Tensor, nn

from estimators.base import Estimate, Estimator, Evaluated, Proposal
from estimators.oracles.differences import AdaptiveIMLE
from estimators.relaxed.gumbel import GumbelSoftmax, StraightThroughGumbel
from estimators.sampled.other_assignments import LeaveOneOut, SecondSample, SelfCritic
from estimators.sampled.score_function import (
    NVIL,
    ConstantBaseline,
    LearnedBaseline,
    MovingAverageBaseline,
    TrainedBaseline,
)
from estimators.sampled.sum_and_sample import SumAndSample
from estimators.sampler import Sampler
from estimators.spaces import Categoricals

SPACE = Categoricals(1, 3)
NO_FEATURES = torch.zeros(2, 1, dtype=torch.float64)


def numbers(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def given(costs: list[float]) -> Evaluated:
    return Evaluated(numbers(costs))


SCORES = numbers([[[0.6, 0.3, 0.1]], [[0.2, 0.6, 0.2]]]).log()


def propose(estimator: Estimator, features: Tensor = NO_FEATURES) -> Proposal:
    q = estimator.distribution(SCORES)
    return estimator.propose(q, features, Sampler(torch.Generator().manual_seed(0)))


def take_step(estimator: Estimator, costs: list[float], features: Tensor = NO_FEATURES) -> Estimate:
    """Move the state on by a step with these costs, which have no slopes; what was estimated."""
    proposal = propose(estimator, features)
    slopes = torch.zeros_like(proposal.z) if estimator.takes_slopes else None
    evaluated = Evaluated(numbers(costs), slopes)
    with torch.no_grad():
        estimate = estimator.combine(estimator.distribution(SCORES), proposal, evaluated)
        estimator.update(proposal, evaluated, estimate)
    return estimate


def check_baseline(estimator: Estimator, baseline: Tensor, features: Tensor = NO_FEATURES) -> None:
    """Costs that are the row's baseline, (B, 1), leave nothing to learn from; others do."""
    q, proposal = estimator.distribution(SCORES), propose(estimator, features)
    costs = baseline.expand(len(SCORES), estimator.calls_per_row).flatten()
    nothing, something = (
        estimator.combine(q, proposal, Evaluated(costs + away)) for away in (0, 2)
    )
    assert nothing.surrogate is not None
    assert something.surrogate is not None
    torch.testing.assert_close(nothing.surrogate, torch.zeros_like(nothing.surrogate))
    assert (something.surrogate < -0.1).all()
    if "baseline_error" in nothing.diagnostics:
        errors = [float(of.diagnostics["baseline_error"]) for of in (nothing, something)]
        assert errors == pytest.approx([0, 4])


@pytest.mark.parametrize("estimator", [GumbelSoftmax, StraightThroughGumbel])
def test_the_temperature_falls_with_the_steps(estimator: type[GumbelSoftmax]) -> None:
    instance = estimator.make(SPACE, initial=2.0, minimum=0.5, rate=0.3, every=2).double()
    seen = []
    for _ in range(6):
        seen.append(instance.temperature)
        take_step(instance, [1.0, 2.0])
    once, twice = 2 * math.exp(-0.6), 2 * math.exp(-1.2)
    assert seen == pytest.approx([2, 2, once, once, twice, twice])


def moved(coordinates: float) -> Estimate:
    """An estimate for which points changed in so many."""
    nothing = numbers([0.0, 0.0])
    return Estimate(nothing, nothing, diagnostics={"changed": numbers(coordinates)})


def test_the_step_of_aimle_grows_while_too_little_changes() -> None:
    """An average from 1 on, of which half is kept: 1.5, 0.75, 1.375, 0.6875, 0.34375; the fewest
    that are enough are 1."""
    estimator = AdaptiveIMLE.make(SPACE, start=0.25, change=0.2, changed=1.0, decay=0.5).double()
    seen = [float(estimator.beta)]
    for changed in (2.0, 0.0, 2.0, 0.0, 0.0):
        estimator.update(propose(estimator), given([0.0, 0.0]), moved(changed))
        seen.append(float(estimator.beta))
    assert seen == pytest.approx([0.25, 0.05, 0.25, 0.05, 0.25, 0.45])


def test_the_step_of_aimle_is_never_negative_and_grows_from_nothing() -> None:
    estimator = AdaptiveIMLE.make(SPACE, start=0.05, change=0.1).double()
    estimator.update(propose(estimator), given([0.0, 0.0]), moved(9.0))
    assert estimator.beta == 0
    estimator.average.fill_(0.2)
    seen = [take_step(estimator, [1.0, 2.0]) for _ in range(3)]
    assert float(estimator.beta) == pytest.approx(0.3)
    assert all(estimate.diagnostics["changed"] == 0 for estimate in seen)  # of no slopes


def test_a_moving_average_follows_the_mean_cost() -> None:
    """Means 2, 5 and −1, of which half is kept a step."""
    estimator = MovingAverageBaseline.make(SPACE, samples=2, decay=0.5).double()
    check_baseline(estimator, numbers(0.0))
    batches = [[1.0, 2.0, 2.0, 3.0], [9.0, 4.0, 6.0, 1.0], [-4.0, 3.0, -3.0, 0.0]]
    averages = [2, (0.5 * 2 + 5) / 1.5, (0.25 * 2 + 0.5 * 5 - 1) / 1.75]
    for costs, average in zip(batches, averages, strict=True):
        take_step(estimator, costs)
        check_baseline(estimator, numbers(average))


def test_sum_and_sample_follows_the_estimated_cost() -> None:
    """The summed category has weight 0.6 in either row, the sampled one 0.4."""
    estimator = SumAndSample.make(SPACE, k=1, samples=1, decay=0.5).double()
    check_baseline(estimator, numbers(0.0))
    batches = [[10.0, 20.0, 0.0, 5.0], [1.0, 1.0, 3.0, -2.0], [-10.0, 5.0, 10.0, 0.0]]
    means = [(14 + 2) / 2, (1 + 1) / 2, (-4 + 6) / 2]
    averages = [
        means[0],
        (0.5 * means[0] + means[1]) / 1.5,
        (0.25 * means[0] + 0.5 * means[1] + means[2]) / 1.75,
    ]
    for costs, average in zip(batches, averages, strict=True):
        take_step(estimator, costs)
        check_baseline(estimator, numbers(average))


def test_nvil_follows_mean_and_variance_of_what_its_network_leaves() -> None:
    """f − x, as b_ψ(x) = x here: (2, 4, 1, 3) has mean 2.5 and variance 1.25, (−2, 2, 10, 2) mean
    3 and variance 19, and (0, 0, 0.2, 0.2) mean 0.1 and variance 0.01."""
    estimator = NVIL.make(SPACE, features=1, samples=2, decay=0.5).double()
    estimator.network = nn.Identity()
    batches = [
        ([1.0, -1.0], [3.0, 5.0, 0.0, 2.0]),
        ([2.0, 0.0], [0.0, 4.0, 10.0, 2.0]),
        ([-1.0, 1.0], [-1.0, -1.0, 1.2, 1.2]),
    ]
    centres = [2.5, (0.5 * 2.5 + 3) / 1.5, (0.25 * 2.5 + 0.5 * 3 + 0.1) / 1.75]
    variances = [1.25, (0.5 * 1.25 + 19) / 1.5, (0.25 * 1.25 + 0.5 * 19 + 0.01) / 1.75]
    x = numbers([[0.5], [-3.0]])
    check_baseline(estimator, x, x)
    for (inputs, costs), centre, variance in zip(batches, centres, variances, strict=True):
        take_step(estimator, costs, numbers(inputs)[:, None])
        check_baseline(estimator, x + centre, x)
        assert float(estimator.scale()) == pytest.approx(1 / math.sqrt(variance))


def test_nvil_divides_by_one_at_least() -> None:
    estimator = NVIL.make(SPACE, features=1).double()
    assert estimator.scale() == 1
    take_step(estimator, [-0.5, 0.5])
    assert estimator.scale() == 1


@pytest.mark.parametrize("samples", [2, 3])
@pytest.mark.parametrize("estimator", [LeaveOneOut, SecondSample, SelfCritic])
def test_costs_of_other_assignments_are_the_baseline(
    estimator: type[Estimator], samples: int
) -> None:
    """It has no state, and costs that are alike leave nothing to learn from, however high."""
    instance = estimator.make(SPACE, samples=samples).double()
    q, proposal = instance.distribution(SCORES), propose(instance)
    costs = numbers([[7.0], [-3.0]]).expand(-1, instance.calls_per_row)
    nothing = instance.combine(q, proposal, Evaluated(costs.flatten()))
    assert nothing.surrogate is not None
    torch.testing.assert_close(nothing.surrogate, torch.zeros_like(nothing.surrogate))
    assert nothing.diagnostics["baseline_error"] == 0


def test_the_critic_is_the_mode() -> None:
    instance = SelfCritic.make(SPACE, samples=3).double()
    q = instance.distribution(SCORES.repeat(20, 1, 1))
    z = instance.propose(q, NO_FEATURES.repeat(20, 1), Sampler(torch.Generator().manual_seed(0)))
    assert torch.equal(z.extras["z"][:, 3:], q.mode()[:, None])


TRAINED: list[type[TrainedBaseline]] = [ConstantBaseline, LearnedBaseline, NVIL]


@pytest.mark.parametrize("estimator", TRAINED)
def test_a_baseline_is_trained_by_least_squares(
    estimator: type[TrainedBaseline],
) -> None:
    """The loss is lowest where a row's baseline is the mean of its costs, and falls towards it."""
    torch.manual_seed(0)
    instance = estimator.make(SPACE, features=1, samples=2).double()
    q, right = instance.distribution(SCORES), propose(instance, numbers([[1.0], [-1.0]]))
    costs = numbers([3.0, 5.0, -2.0, 0.0])

    def slope(baseline: Tensor) -> Tensor:
        leaf = baseline.clone().requires_grad_()
        proposal = Proposal.rectangular(right.extras["z"], numbers([[0.5, 0.5]] * 2), baseline=leaf)
        loss = instance.combine(q, proposal, Evaluated(costs)).own_loss
        assert loss is not None
        (gradient,) = torch.autograd.grad(loss, leaf)
        return gradient

    target = numbers([[4.0], [-1.0]])
    torch.testing.assert_close(slope(target), torch.zeros_like(target))
    for away in (0.01, 1.0, 100.0):
        assert (slope(target + away) > 0).all()
        assert (slope(target - away) < 0).all()


@pytest.mark.parametrize("estimator", TRAINED)
def test_descent_on_its_loss_takes_the_baseline_to_its_target(
    estimator: type[TrainedBaseline],
) -> None:
    """The mean cost of each input, or of all where b is a constant."""
    torch.manual_seed(0)
    instance = estimator.make(SPACE, features=1).double()
    q, inputs = instance.distribution(SCORES), numbers([[1.0], [-1.0]])
    optimizer = torch.optim.SGD(instance.parameters(), lr=0.05)
    for _ in range(200):
        loss = instance.combine(q, propose(instance, inputs), given([4.0, -1.0])).own_loss
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    target = numbers([1.5, 1.5] if estimator is ConstantBaseline else [4.0, -1.0])
    found = propose(instance, inputs).extras["baseline"].flatten().detach()
    torch.testing.assert_close(found, target, rtol=0, atol=1e-3)
