"""Estimators through an oracle where they are exact, and against loops over every assignment."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import Tensor

from estimators.base import Estimator, Evaluated, Proposal
from estimators.oracles.differences import IMLE, AdaptiveIMLE, Blackbox, SecondCall
from estimators.oracles.identity import Identity
from estimators.oracles.perturbed import Perturbed
from estimators.oracles.projected import Spigot
from estimators.oracles.through import ThroughOracle
from estimators.registry import all_estimators
from estimators.sampler import Sampler
from estimators.spaces import Bits, Categoricals, Space, Subsets
from tests.estimators.contract import (
    BITS,
    CATEGORICAL,
    COSTS,
    FEATURES,
    SEVERAL,
    SUBSET,
    SUBSETS,
    CostFunction,
    Problem,
    central_differences,
    costs_and_slopes,
    linear,
    network,
    run,
    steep,
)
from tests.estimators.relaxed.test_relaxations import (
    BIT,
    NODES,
    PAIR,
    Quadrature,
    check_samples,
    log_odds,
    point_of,
)

SPACES = [BITS, CATEGORICAL, SEVERAL]
STRUCTURES = [*SPACES, SUBSET, SUBSETS]
"""And spaces whose noise does not sample q."""
DRAWS = 200_000
STEPS = (0.1, 1.0, 10.0)
ALL: list[type[Estimator]] = [
    kind for kind in all_estimators().values() if issubclass(kind, ThroughOracle)
]


def slope_at(problem: Problem, f: CostFunction, point: Tensor) -> Tensor:
    """Of one point (P,)."""
    leaf = point.clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(leaf[None], problem.theta[None]).sum(), leaf)
    return slope


def best_of_all(space: Space, scores: Tensor) -> Tensor:
    """The point (P,) of highest ⟨scores, point⟩, one assignment after the other."""
    every = space.point(space.every(scores), scores.dtype).flatten(1)
    return max(every, key=lambda point: float(point @ scores.flatten()))


def estimated(estimator: Estimator, problem: Problem, f: CostFunction) -> Tensor:
    """The gradient (P,) of one row, of an estimator without noise."""
    return run(estimator, problem, f, Sampler(), rows=1).scores.flatten()


def check_linear(estimator: Estimator, wanted: Tensor, problem: Problem) -> None:
    """The mean gradient over many draws, of the linear cost, is no further than chance has it."""
    sampler = Sampler(torch.Generator().manual_seed(4))
    found = run(estimator.double(), problem, linear, sampler, DRAWS).scores.flatten(1)
    limit = stats.norm.isf(0.001 / (2 * 100))
    error = (found.mean(dim=0) - wanted.flatten()).abs()
    assert (error <= limit * found.std(dim=0) / DRAWS**0.5).all()


def difference_of_marginals(problem: Problem, up: float, down: float) -> Tensor:
    """Of the linear cost, whose slope is θ of the decoder."""
    slope = problem.theta.view_as(problem.scores)
    soft = problem.space.soft
    return (soft(problem.scores + up * slope) - soft(problem.scores - down * slope)) / (up + down)


def check_imle_of_a_linear_cost(kind: type[IMLE], space: Space, step: float = 0.7) -> None:
    problem = Problem.random(space, seed=5)
    wanted = difference_of_marginals(problem, 0, step)
    check_linear(kind.make(space, step=step, samples=2), wanted, problem)


@pytest.mark.parametrize("step", [0.2, 3.0])
@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_imle_of_a_linear_cost_is_a_difference_of_marginals(space: Space, step: float) -> None:
    check_imle_of_a_linear_cost(IMLE, space, step)


@pytest.mark.parametrize("difference", ["forward", "central"])
@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_aimle_of_a_linear_cost_is_a_difference_of_marginals(space: Space, difference: str) -> None:
    """With copies of one row in the batch, λ = β ‖θ‖ / ‖g‖ is that of the row."""
    problem = Problem.random(space, seed=5)
    step = 0.8 * float(problem.scores.norm() / problem.theta.norm())
    wanted = difference_of_marginals(problem, step if difference == "central" else 0, step)
    check_linear(AdaptiveIMLE.make(space, start=0.8, difference=difference), wanted, problem)


def chances_with_noise(space: Subsets, scores: Tensor) -> Tensor:
    """Of the items, of being among the k best with Gumbel noise: they come one after the other,
    with probabilities in proportion to the exponentials of their scores."""
    weight, chances = scores.exp(), torch.zeros_like(scores)
    for order in itertools.permutations(range(space.items), space.chosen):
        taken, p = torch.zeros(space.items, dtype=scores.dtype), scores.new_ones(space.variables)
        for item in order:
            p = p * weight[:, item] / (weight * (1 - taken)).sum(dim=1)
            taken[item] = 1
        chances = chances + p[:, None] * taken
    return chances


@pytest.mark.parametrize("space", [SUBSET, SUBSETS], ids=repr)
def test_noise_that_does_not_sample_q_has_marginals_of_its_own(space: Subsets) -> None:
    """Whose differences are I-MLE's, and whose slopes those of perturbed optimisers."""
    problem = Problem.random(space, seed=5)
    scores, slope = problem.scores, problem.theta.view_as(problem.scores)
    moved = chances_with_noise(space, scores) - chances_with_noise(space, scores - 0.7 * slope)
    wanted = central_differences(
        lambda s: (chances_with_noise(space, s) * slope).sum(), problem.scores
    )
    check_linear(IMLE.make(space, step=0.7, samples=2), moved / 0.7, problem)
    check_linear(Perturbed.make(space), wanted, problem)
    q = central_differences(lambda s: (space.soft(s) * slope).sum(), problem.scores)
    with pytest.raises(AssertionError):
        check_linear(Perturbed.make(space), q, problem)


@pytest.mark.parametrize("f", COSTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("space", [PAIR, BIT], ids=repr)
def test_imle_of_two_assignments_by_quadrature(space: Space, f: CostFunction, step: float) -> None:
    """On where −ℓ < noise, moved by λ times the slope there: a share of the noise changes."""
    problem = Problem.random(space, seed=4)
    switch = -float(log_odds(space, problem.scores))

    def moved(on: float) -> float:
        point = point_of(space, torch.tensor(on, dtype=torch.float64)).flatten()
        slope = slope_at(problem, f, point)
        return step * float(slope[0] - slope[1] if space == PAIR else slope[0])

    leave = stats.logistic.cdf(max(switch, switch + moved(1.0))) - stats.logistic.cdf(switch)
    enter = stats.logistic.cdf(switch) - stats.logistic.cdf(min(switch, switch + moved(0.0)))
    wanted = (leave - enter) / step
    gradient = [wanted, -wanted] if space == PAIR else [wanted]
    found = run(IMLE.make(space, step=step), problem, f, Quadrature(), NODES).scores.mean(dim=0)
    wanted_tensor = torch.tensor(gradient, dtype=torch.float64)
    torch.testing.assert_close(found.flatten(), wanted_tensor, rtol=0, atol=2 / NODES / step)


def check_same_noise(kind: type[Estimator], space: Space) -> None:
    """Where the slope is zero the second assignment is the first, whatever the noise."""
    problem, sampler = Problem.random(space), Sampler(torch.Generator().manual_seed(0))
    found = run(kind.make(space).double(), problem, lambda z, t: 0 * (z * t).sum(1), sampler, 50)
    assert (found.scores == 0).all()


@pytest.mark.parametrize("space", STRUCTURES, ids=repr)
@pytest.mark.parametrize("kind", ALL)
def test_no_slope_leaves_nothing(kind: type[Estimator], space: Space) -> None:
    check_same_noise(kind, space)


class FreshNoise(IMLE):
    """The second assignment has noise of its own."""

    def combine(self, q: Any, proposal: Proposal, evaluated: Any) -> Any:
        other = self.perturbed(q, Sampler(torch.Generator().manual_seed(9))).detach()
        fresh = replace(proposal, extras=proposal.extras | {"perturbed": other})
        return super().combine(q, fresh, evaluated)


class NotOverTheStep(IMLE):
    """The 1/λ is missing."""

    def estimate(self, q: Any, evaluated: Any, gradient: Tensor, **diagnostics: Tensor) -> Any:
        return super().estimate(q, evaluated, gradient * self.settings.step, **diagnostics)


class WeightedSlopes(IMLE):
    """The slopes are those of the weighted costs."""

    def combine(self, q: Any, proposal: Proposal, evaluated: Any) -> Any:
        weighted = evaluated._replace(slopes=evaluated.slopes / self.settings.samples)
        return super().combine(q, proposal, weighted)


def test_planted_mistakes_are_caught() -> None:
    for space in (CATEGORICAL, BITS):
        with pytest.raises(AssertionError):
            check_same_noise(FreshNoise, space)
        for mutant in (NotOverTheStep, WeightedSlopes):
            with pytest.raises(AssertionError):
                check_imle_of_a_linear_cost(mutant, space)


@pytest.mark.parametrize("f", [network, steep], ids=lambda f: f.__name__)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("space", STRUCTURES, ids=repr)
def test_blackbox_is_a_loop_over_all_assignments(
    space: Space, step: float, f: CostFunction
) -> None:
    for seed in range(5):
        problem = Problem.random(space, seed)
        z = best_of_all(space, problem.scores)
        against = problem.scores.flatten() - step * slope_at(problem, f, z)
        wanted = (z - best_of_all(space, against)) / step
        found = estimated(Blackbox.make(space, step=step), problem, f)
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("space", [*SPACES, SUBSETS], ids=repr)
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (IMLE, {"step": 1.8}),
        (AdaptiveIMLE, {"start": 1.8}),
        (AdaptiveIMLE, {"start": 1.8, "difference": "central"}),
    ],
)
def test_a_batch_of_unlike_rows_by_hand(
    kind: type[SecondCall], settings: dict[str, Any], space: Space
) -> None:
    """Three rows and two samples: each assignment the best of all, and λ that of the batch."""
    estimator = kind.make(space, samples=2, **settings).double()
    problem = Problem.random(space)
    rows = (3, *space.scores_shape)
    scores = torch.randn(rows, generator=torch.Generator().manual_seed(1)).double()
    q = estimator.distribution(scores.requires_grad_())
    sampler = Sampler(torch.Generator().manual_seed(2))
    proposal = estimator.propose(q, torch.zeros(3, FEATURES), sampler)
    evaluated = costs_and_slopes(proposal, problem, steep)
    estimate = estimator.combine(q, proposal, evaluated)
    assert estimate.surrogate is not None
    (found,) = torch.autograd.grad(estimate.surrogate.sum(), scores)
    assert evaluated.slopes is not None
    slopes = evaluated.slopes.view(3, 2, -1)
    step, central = 1.8, settings.get("difference") == "central"
    if kind is AdaptiveIMLE:
        own = sum(float(row.square().sum()) for row in scores.detach()) / 3
        step *= math.sqrt(own / (float(slopes.square().sum()) / 6))
    wanted, changed = torch.zeros(3, slopes.shape[2], dtype=torch.float64), 0
    for row in range(3):
        for sample in range(2):
            noisy = proposal.extras["perturbed"][row, sample].flatten()
            z = best_of_all(space, noisy)
            assert torch.equal(proposal.extras["z"][row, sample].flatten(), z)
            move = step * slopes[row, sample]
            away = best_of_all(space, noisy + move) if central else z
            away = away - best_of_all(space, noisy - move)
            wanted[row] += away / (step * (2 if central else 1)) / 2
            changed += int((away != 0).sum())
    torch.testing.assert_close(found.flatten(1), wanted)
    assert changed > 0
    if kind is AdaptiveIMLE:
        assert float(estimate.diagnostics["changed"]) == pytest.approx(changed / 6)
        assert float(estimate.diagnostics["step"]) == pytest.approx(step)


def with_samples_of_q() -> list[Any]:
    settings: list[tuple[type[Estimator], dict[str, Any]]] = [
        (IMLE, {}), (AdaptiveIMLE, {"start": 1.0}), (Identity, {}),
    ]  # fmt: skip
    return [(kind, chosen | {"samples": n}) for kind, chosen in settings for n in (1, 2)]


@pytest.mark.parametrize("space", [CATEGORICAL, BITS], ids=repr)
@pytest.mark.parametrize(("kind", "settings"), with_samples_of_q())
def test_the_decoder_sees_samples_of_q(
    kind: type[Estimator], settings: dict[str, Any], space: Space
) -> None:
    check_samples(kind.make(space, **settings).double())


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_answers_that_agree_have_no_gradient(space: Space) -> None:
    """The mean answer is a control variate: noise of which nothing came adds none."""
    scores = 60 * Problem.random(space).scores.sign()
    if not isinstance(space, Bits):
        scores = torch.nn.functional.one_hot(scores.argmax(dim=1), scores.shape[1]) * 60.0
    problem = Problem(space, scores.double(), Problem.random(space).theta)
    sampler = Sampler(torch.Generator().manual_seed(0))
    found = run(Perturbed.make(space, perturbations=3), problem, linear, sampler, 200)
    assert (found.scores == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.0, 30.0])
@pytest.mark.parametrize("space", STRUCTURES, ids=repr)
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((kind, {}) for kind in ALL),
        (AdaptiveIMLE, {"start": 1.0}),
        (Identity, {"noise": "none"}),
        (Spigot, {"target": "ce"}),
        (Spigot, {"target": "eg"}),
    ],
)
def test_gradients_are_finite(
    kind: type[Estimator],
    settings: dict[str, Any],
    space: Space,
    scale: float,
    dtype: torch.dtype,
) -> None:
    """At no scores and at large ones, with no slopes and with large ones."""
    estimator = kind.make(space, **settings).to(dtype)
    generator = torch.Generator().manual_seed(0)
    signs = torch.randn(64, *space.scores_shape, generator=generator).sign()
    scores = (scale * signs).to(dtype).requires_grad_()
    q = estimator.distribution(scores)
    proposal = estimator.propose(q, torch.zeros(64, FEATURES, dtype=dtype), Sampler(generator))
    for slope in (0.0, 1e4):
        slopes = torch.full_like(proposal.z, slope).detach()
        given = Evaluated(slopes.flatten(1).sum(dim=1), slopes)
        surrogate = estimator.combine(q, proposal, given).surrogate
        assert surrogate is not None
        (gradient,) = torch.autograd.grad(surrogate.sum(), scores, retain_graph=True)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("space", [Bits(50), Categoricals(50, 2)], ids=repr)
def test_the_noise_of_other_variables_is_no_part_of_what_is_perturbed(space: Space) -> None:
    """A linear cost of one variable alone leaves the scores of all others without a gradient."""
    estimator, problem = Perturbed.make(space).double(), Problem.random(space)

    def first(point: Tensor, theta: Tensor) -> Tensor:
        return 3 * point[:, 0]

    found = run(estimator, problem, first, Sampler(torch.Generator().manual_seed(0)), 100).scores
    assert found[:, 0].abs().max() > 0
    assert (found[:, 1:] == 0).all()


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("st", {"forward": "mode", "samples": 2}, "there is one mode"),
        ("st", {"backward": "identity", "temperature": 0.5}, "there is no temperature"),
        ("gapped-st", {"gap_from": "probability", "gap": 2.0}, "the gap is the probability's"),
        ("spigot", {"target": "ste-identity", "step": 0.1}, "has no step in it"),
    ],
)
def test_settings_without_effect_are_refused(
    name: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        all_estimators()[name].make(BITS, **settings)
