"""Control variates from slopes and relaxations: unbiased whatever was learned, and what they train.

Contract tests enumerate them as they start; here their own parameters have moved.
"""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from estimators.base import Estimator, Evaluated
from estimators.sampled import control_variates, relaxed_controls
from estimators.sampled.control_variates import ControlVariate, DoubleControlVariates, MuProp
from estimators.sampled.other_assignments import LeaveOneOut
from estimators.sampled.relaxed_controls import REBAR, RELAX, RelaxedControl, RELAXOnREBAR
from estimators.sampled.stein import RODEO
from estimators.sampler import Sampler
from estimators.spaces import Bits, Categoricals, Space
from estimators.spaces.base import Factorised
from tests.estimators.contract import (
    FEATURES,
    FEW_BITS,
    FEW_CATEGORIES,
    FEW_SEVERAL,
    CostFunction,
    Problem,
    check_expectation,
    cubic,
    draws_of_a_row,
    exact,
    linear,
    network,
    run,
)
from tests.estimators.every_outcome import EveryOutcome
from tests.estimators.relaxed.test_relaxations import BIT, NODES, PAIR, Quadrature

SPACES: list[Space] = [FEW_BITS, FEW_CATEGORIES, FEW_SEVERAL]
FROM_SLOPES: list[type[ControlVariate]] = [MuProp, DoubleControlVariates, RODEO]


def moved(kind: type[Estimator], space: Space, **settings: object) -> Estimator:
    """With parameters that are not where they start."""
    torch.manual_seed(2)
    estimator = kind.make(space, features=FEATURES, **settings).double()
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.add_(torch.randn_like(parameter))
    return estimator


@pytest.mark.parametrize("f", [linear, cubic, network], ids=lambda f: f.__name__)
@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize("kind", FROM_SLOPES)
def test_any_strength_leaves_it_unbiased(
    kind: type[ControlVariate], space: Space, f: CostFunction
) -> None:
    if not isinstance(space, kind.spaces):
        pytest.skip(f"{kind.name} takes bits")
    for samples in (2, 3):
        check_expectation(moved(kind, space, samples=samples), Problem.random(space), f)


@pytest.mark.parametrize(
    ("kind", "name", "planted"),
    [
        (MuProp, "pulled_back", lambda self, mean, slope: torch.zeros_like(mean)),
        (MuProp, "pulled_back", lambda self, mean, slope: slope * mean),
        (DoubleControlVariates, "pulled_back", lambda self, mean, slope: torch.zeros_like(mean)),
    ],
)
def test_what_is_taken_away_has_to_be_given_back(
    kind: type[ControlVariate],
    name: str,
    planted: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ControlVariate, name, planted)
    with pytest.raises(AssertionError):
        check_expectation(moved(kind, FEW_BITS, samples=2), Problem.random(FEW_BITS), network)


def test_a_baseline_of_the_sample_itself_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        control_variates, "_against_others", lambda v: v - v.mean(dim=1, keepdim=True)
    )
    estimator = DoubleControlVariates.make(FEW_BITS, samples=2).double()
    with pytest.raises(AssertionError):
        check_expectation(estimator, Problem.random(FEW_BITS), network)


@pytest.mark.parametrize("entropy", ["analytic", "sampled"])
@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_muprop_has_no_variance_for_linear_costs(space: Space, entropy: str) -> None:
    """At η₁ = 1, where it starts; log q is linear, too."""
    problem, estimator = Problem.random(space), MuProp.make(space, entropy=entropy).double()
    draws = draws_of_a_row(estimator, problem, linear)
    found = run(estimator, problem, linear, EveryOutcome(draws), draws[0], entropy_weight=0.7)
    wanted = exact(estimator, problem, linear, entropy_weight=0.7).scores
    torch.testing.assert_close(found.scores, wanted.expand_as(found.scores), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_controls_of_the_other_samples_are_rloo_where_they_start(space: Space) -> None:
    problem = Problem.random(space)
    *ours, wanted = (
        run(
            kind.make(space, samples=3).double(), problem, network,
            Sampler(torch.Generator().manual_seed(0)), 50,
        )
        for kind in (DoubleControlVariates, RODEO, LeaveOneOut)
        if isinstance(space, kind.spaces)
    )  # fmt: skip
    for found in ours:
        torch.testing.assert_close(found.scores, wanted.scores)
        torch.testing.assert_close(found.theta, wanted.theta)


def own_loss_and_estimates(estimator: Estimator, space: Space) -> tuple[Tensor, Tensor]:
    """The own loss of a batch, and the gradient of the scores of each row, (B, …)."""
    problem = Problem.random(space)
    scores = problem.scores.expand(40, *space.scores_shape).clone().requires_grad_()
    q = estimator.distribution(scores)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, FEATURES, generator=generator, dtype=torch.float64)
    proposal = estimator.propose(q, features, Sampler(generator))
    theta = problem.theta.expand(len(proposal.row), -1)
    points = problem.point(proposal.z).requires_grad_()
    costs = network(points, theta)
    (slopes,) = torch.autograd.grad(costs.sum(), points)
    if isinstance(proposal.slopes, Tensor):
        slopes = slopes[proposal.slopes]
    slopes = slopes.unflatten(1, space.point_shape)
    given = Evaluated(costs.detach(), slopes if estimator.takes_slopes else None)
    estimate = estimator.combine(q, proposal, given)
    assert estimate.surrogate is not None
    assert estimate.own_loss is not None
    (gradient,) = torch.autograd.grad(estimate.surrogate.sum(), scores, retain_graph=True)
    return estimate.own_loss, gradient


def slope_of_the_square(estimator: Estimator, space: Space, parameter: Tensor) -> Tensor:
    """Of what one number of a parameter does to the square of the estimate, of one sample."""

    def square() -> Tensor:
        _, gradient = own_loss_and_estimates(estimator, space)
        return gradient.square().sum() / len(gradient)

    number = parameter.data.view(-1)[:1]
    number.add_(1e-5)
    above = square()
    number.sub_(2e-5)
    below = square()
    number.add_(1e-5)
    return (above - below) / 2e-5


@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize("kind", [DoubleControlVariates, RODEO, REBAR, RELAX, RELAXOnREBAR])
def test_what_is_trained_is_the_square_of_the_estimate(kind: type[Estimator], space: Space) -> None:
    """And its slope that of the square, as the parameters move."""
    if not isinstance(space, kind.spaces):
        pytest.skip(f"{kind.name} takes bits")
    samples = 2 if issubclass(kind, DoubleControlVariates | RODEO) else 1
    estimator = moved(kind, space, samples=samples)
    loss, gradient = own_loss_and_estimates(estimator, space)
    torch.testing.assert_close(loss.detach(), gradient.square().sum() / len(gradient))
    parameters = [*estimator.parameters()]
    slopes = torch.autograd.grad(loss, parameters)
    for parameter, slope in zip(parameters, slopes, strict=True):
        wanted = slope_of_the_square(estimator, space, parameter)
        torch.testing.assert_close(slope.view(-1)[0], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("noise", ["tied", "independent"])
@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize("kind", [REBAR, RELAX, RELAXOnREBAR])
def test_the_temperature_is_trained_by_the_square_of_the_estimate(
    kind: type[RelaxedControl], space: Space, noise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaxed_controls, "STEP", 1e-4)
    estimator = moved(kind, space, temperature_is="trained", noise=noise)
    assert isinstance(estimator, RelaxedControl)
    assert estimator.log_temperature is not None
    loss, gradient = own_loss_and_estimates(estimator, space)
    torch.testing.assert_close(loss.detach(), gradient.square().sum() / len(gradient))
    (slope,) = torch.autograd.grad(loss, estimator.log_temperature)
    wanted = slope_of_the_square(estimator, space, estimator.log_temperature)
    assert wanted.abs() > 1e-4
    torch.testing.assert_close(slope, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("f", [linear, network], ids=lambda f: f.__name__)
@pytest.mark.parametrize("space", [BIT, PAIR], ids=repr)
@pytest.mark.parametrize("kind", [REBAR, RELAX, RELAXOnREBAR])
def test_tied_noise_is_exact_by_quadrature(
    kind: type[RelaxedControl], space: Space, f: CostFunction
) -> None:
    """Of which there is one draw, so that it can be integrated."""
    problem = Problem.random(space, seed=4)
    small = {} if kind is REBAR else {"hidden": 3}
    for entropy, temperature, fixed in (
        ("analytic", 0.3, "fixed"), ("sampled", 1.0, "fixed"), ("analytic", 0.5, "trained"),
    ):  # fmt: skip
        estimator = moved(
            kind, space, temperature=temperature, temperature_is=fixed, entropy=entropy, **small
        )
        found = run(estimator, problem, f, Quadrature(), NODES, entropy_weight=1.0)
        wanted = exact(estimator, problem, f, entropy_weight=1.0)
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(found.scores.mean(dim=0), wanted.scores, **close)
        torch.testing.assert_close(found.theta.mean(dim=0), wanted.theta, **close)


def test_a_relaxed_sample_that_does_not_know_z_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the path of the scores for that of the scores given z."""
    monkeypatch.setattr(Bits, "perturbed_given", lambda self, s, point, noise: s + noise)
    monkeypatch.setattr(Bits, "noise_given", lambda self, s, point, perturbed: perturbed - s)
    problem, estimator = Problem.random(BIT, seed=4), moved(REBAR, BIT)
    found = run(estimator, problem, network, Quadrature(), NODES).scores.mean(dim=0)
    assert (found - exact(estimator, problem, network).scores).abs().max() > 1e-3


@pytest.mark.parametrize("space", [Bits(3), Categoricals(2, 4)], ids=repr)
def test_perturbed_scores_given_z_have_its_best_assignment_and_their_own_law(
    space: Factorised,
) -> None:
    generator, rows = torch.Generator().manual_seed(1), 20_000
    sampler = Sampler(generator)
    scores = torch.randn(1, 1, *space.scores_shape, generator=generator, dtype=torch.float64)
    scores = 2 * scores.expand(rows, -1, *space.scores_shape)
    free = scores + space.noise(scores[:, 0], sampler, 1)
    point = space.point(space.best(free), torch.float64)
    given = space.perturbed_given(scores, point, space.noise(scores[:, 0], sampler, 1))
    assert torch.equal(space.point(space.best(given), torch.float64), point)
    if isinstance(space, Categoricals):  # their level is free
        free = free - scores.logsumexp(dim=3, keepdim=True)
    for one, other in zip(free.flatten(1).T, given.flatten(1).T, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-4
    again = space.perturbed_given(scores, point, space.noise_given(scores, point, free))
    if isinstance(space, Categoricals):
        free = free - scores.logsumexp(dim=3, keepdim=True)
    torch.testing.assert_close(again, free)


def test_relax_without_a_network_is_the_score_function() -> None:
    estimator = moved(RELAX, FEW_SEVERAL)
    with torch.no_grad():
        for parameter in estimator.network.layers[-1].parameters():  # type: ignore[union-attr, index]
            parameter.zero_()
    scores = Problem.random(FEW_SEVERAL).scores.expand(9, -1, -1).clone().requires_grad_()
    q = estimator.distribution(scores)
    proposal = estimator.propose(q, torch.zeros(9, FEATURES).double(), Sampler())
    costs = torch.arange(9.0, dtype=torch.float64)
    surrogate = estimator.combine(q, proposal, Evaluated(costs)).surrogate
    assert surrogate is not None
    (found,) = torch.autograd.grad(surrogate.sum(), scores)
    score = proposal.z - FEW_SEVERAL.soft(scores.detach())
    torch.testing.assert_close(found, costs[:, None, None] * score)


def test_what_a_stein_operator_makes_has_no_mean() -> None:
    """Of both networks, over every outcome, with features that do not change: the part of the
    estimate that α and β are the strengths of."""
    estimator = moved(RODEO, Bits(3), samples=2)
    problem, found = Problem.random(Bits(3)), []
    for strengths in ([0.0, 0.0], [3.0, 0.0], [0.0, 3.0]):
        estimator.strengths.data.copy_(torch.tensor(strengths))  # type: ignore[operator, union-attr]
        draws = draws_of_a_row(estimator, problem, network)
        dealer = EveryOutcome(draws)
        result = run(estimator, problem, network, dealer, draws[0] * draws[1])
        found.append((dealer.weight @ result.scores, result.scores))
    for mean, each in found[1:]:
        torch.testing.assert_close(mean, found[0][0])
        assert (each - found[0][1]).abs().max() > 1e-3


def test_a_network_that_sees_the_sample_itself_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "eye", lambda size, **how: torch.zeros(size, size, **how))
    problem, estimator = Problem.random(FEW_BITS), moved(RODEO, FEW_BITS, samples=2)
    with pytest.raises(AssertionError):
        check_expectation(estimator, problem, network)
