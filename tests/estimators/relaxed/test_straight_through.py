"""Straight-through from samples of q: every outcome against its formula, written out for one
variable, and the expectations that are exact.

Of a bit the formulas are those of two categories with the scores (θ, 0).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from estimators.base import Estimate, Estimator, Evaluated, ExactFor, Proposal
from estimators.relaxed.straight_through import (
    FromVertices,
    GappedStraightThrough,
    ReinMax,
    StraightThrough,
)
from estimators.sampler import Sampler
from estimators.spaces import Bits, Categoricals, Space, Subsets
from estimators.spaces.distribution import Distribution, PlainDistribution
from tests.estimators.contract import (
    BITS,
    CATEGORICAL,
    SEVERAL,
    SUBSET,
    SUBSETS,
    CostFunction,
    Problem,
    check_exact_for,
    check_expectation,
    cubic,
    exact,
    expectation,
    linear,
    multilinear,
    network,
    quadratic,
    run,
)
from tests.estimators.every_outcome import EveryOutcome

SPACES = [CATEGORICAL, SEVERAL, BITS]

Formula = Callable[[Tensor, int, Tensor], Tensor]
"""From a variable's scores (C,), the category that was drawn, and the slope (C,), the gradient."""


def jacobian(p: Tensor) -> Tensor:
    return torch.diag(p) - torch.outer(p, p)


def of_marginals(temperature: float) -> Formula:
    def gradient(scores: Tensor, drawn: int, slope: Tensor) -> Tensor:
        return jacobian((scores / temperature).softmax(0)) @ slope / temperature

    return gradient


def identity(scores: Tensor, drawn: int, slope: Tensor) -> Tensor:
    return slope


def darn(scores: Tensor, drawn: int, slope: Tensor) -> Tensor:
    away = torch.eye(len(scores), dtype=scores.dtype)[drawn] - scores.softmax(0)
    return torch.outer(away, away) @ slope


def zgr(scores: Tensor, drawn: int, slope: Tensor) -> Tensor:
    return (of_marginals(1.0)(scores, drawn, slope) + darn(scores, drawn, slope)) / 2


def trapezoid(temperature: float) -> Formula:
    def gradient(scores: Tensor, drawn: int, slope: Tensor) -> Tensor:
        mixed = (scores / temperature).softmax(0) / 2
        mixed[drawn] += 0.5
        return (2 * jacobian(mixed) - 0.5 * jacobian(scores.softmax(0))) @ slope

    return gradient


def gapped(gap: float | None, temperature: float) -> Formula:
    """In the published steps: lift the drawn score to the highest, push the others down."""

    def gradient(scores: Tensor, drawn: int, slope: Tensor) -> Tensor:
        highest, p = float(scores.max()), scores.softmax(0)[drawn]
        wanted = float(-torch.log1p(-p) / p) if gap is None else gap
        moved = scores.clone()
        for c in range(len(scores)):
            if c == drawn:
                moved[c] += highest - float(scores[c])
            else:
                moved[c] -= max(0.0, float(scores[c]) - highest + wanted)
        return of_marginals(temperature)(moved, drawn, slope)

    return gradient


CASES: list[tuple[type[FromVertices], dict[str, Any], Formula]] = [
    (StraightThrough, {}, of_marginals(1.0)),
    (StraightThrough, {"temperature": 0.6}, of_marginals(0.6)),
    (StraightThrough, {"backward": "identity"}, identity),
    (ReinMax, {}, zgr),
    (ReinMax, {"temperature": 1.4}, trapezoid(1.4)),
    (GappedStraightThrough, {}, gapped(1.0, 1.0)),
    (GappedStraightThrough, {"gap": 0.3, "temperature": 0.6}, gapped(0.3, 0.6)),
    (GappedStraightThrough, {"gap_from": "probability"}, gapped(None, 1.0)),
]


def slope_at(problem: Problem, f: CostFunction, z: Tensor) -> Tensor:
    """∂f/∂point at an assignment, in the shape of a point."""
    point = problem.point(z[None]).requires_grad_()
    (slope,) = torch.autograd.grad(f(point, problem.theta[None]).sum(), point)
    return slope.view(problem.space.point_shape)


def by_formula(problem: Problem, f: CostFunction, formula: Formula) -> Tensor:
    """The gradient of the scores for each assignment that can be drawn."""
    found = []
    for z in problem.assignments():
        slope = slope_at(problem, f, z)
        if isinstance(problem.space, Bits):
            nothing = torch.zeros((), dtype=torch.float64)
            each = [
                formula(torch.stack([s, nothing]), int(1 - bit), torch.stack([g, nothing]))[0]
                for s, bit, g in zip(problem.scores, z, slope, strict=True)
            ]
        else:
            each = [formula(s, int(c), g) for s, c, g in zip(problem.scores, z, slope, strict=True)]
        found.append(torch.stack(each))
    return torch.stack(found)


def check_formula(
    kind: type[FromVertices], settings: dict[str, Any], formula: Formula, problem: Problem
) -> None:
    """Each outcome has the gradient of the formula, and its probability under q."""
    space = problem.space
    dealer = EveryOutcome([space.count])
    estimator = kind.make(space, **settings).double()
    found = run(estimator, problem, network, dealer, space.count)
    torch.testing.assert_close(found.scores, by_formula(problem, network, formula))
    wanted = exact(estimator, problem, network)
    torch.testing.assert_close(dealer.weight @ found.value, wanted.value)
    torch.testing.assert_close(dealer.weight @ found.theta, wanted.theta, rtol=1e-6, atol=1e-8)


def scaled(space: Space, by: float) -> Problem:
    problem = Problem.random(space, seed=3)
    return replace(problem, scores=by * problem.scores)


@pytest.mark.parametrize("by", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize(("kind", "settings", "formula"), CASES)
def test_every_outcome_has_the_gradient_of_its_formula(
    kind: type[FromVertices], settings: dict[str, Any], formula: Formula, space: Space, by: float
) -> None:
    check_formula(kind, settings, formula, scaled(space, by))


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_the_mode_is_seen_where_that_is_asked_for(space: Space) -> None:
    problem = Problem.random(space)
    estimator = StraightThrough.make(space, forward="mode").double()
    assert estimator.calls_per_row == 1
    found = run(estimator, problem, network, Sampler(), 1)
    z = space.best(problem.scores)
    (place,) = [n for n, one in enumerate(problem.assignments()) if torch.equal(one, z)]
    torch.testing.assert_close(
        found.scores, by_formula(problem, network, of_marginals(1.0))[[place]]
    )
    assert found.value == network(problem.point(z[None]), problem.theta[None])


@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize("kind", [StraightThrough, ReinMax, GappedStraightThrough])
def test_samples_are_averaged(kind: type[FromVertices], space: Space) -> None:
    problem = Problem.random(space)
    one, two = (kind.make(space, samples=samples).double() for samples in (1, 2))
    found, all_pairs = (
        run(estimator, problem, network, EveryOutcome([space.count] * n), space.count**n).scores
        for n, estimator in enumerate((one, two), 1)
    )
    pairs = (found[:, None] + found[None]).flatten(0, 1) / 2
    torch.testing.assert_close(all_pairs, pairs)


@pytest.mark.parametrize("space", [SEVERAL, BITS, Categoricals(3, 2)], ids=repr)
def test_an_exactness_is_claimed_where_it_holds_and_nowhere_else(space: Space) -> None:
    """Of products over variables for `st`, of quadratic costs for `reinmax`."""
    problem = Problem.random(space)
    both = [(StraightThrough, multilinear(space), quadratic), (ReinMax, quadratic, cubic)]
    for kind, right, wrong in both:
        estimator = kind.make(space).double()
        check_exact_for(estimator, space)
        check_expectation(estimator, problem, right)
        with pytest.raises(AssertionError, match="not close"):
            check_expectation(estimator, problem, wrong)
    for other in (
        StraightThrough.make(space, temperature=1.1),
        StraightThrough.make(space, forward="mode"),
        StraightThrough.make(space, backward="identity"),
        ReinMax.make(space, temperature=1.1),
        GappedStraightThrough.make(space),
    ):
        assert other.exact_for is None
        with pytest.raises(AssertionError, match="not close"):
            check_expectation(other, problem, linear)


class SaysItIsReinMax(StraightThrough):
    exact_for: ClassVar[ExactFor] = "quadratic"  # type: ignore[misc]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_a_first_order_rule_is_not_taken_for_a_second_order_one(space: Space) -> None:
    with pytest.raises(AssertionError, match="not close"):
        check_exact_for(SaysItIsReinMax.make(space), space)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("space", [BITS, SEVERAL], ids=repr)
@pytest.mark.parametrize(("kind", "settings", "formula"), CASES)
def test_extreme_scores_give_numbers_that_are_right(
    kind: type[FromVertices],
    settings: dict[str, Any],
    formula: Formula,
    space: Space,
    dtype: torch.dtype,
) -> None:
    """Also for assignments whose probability is e^-60 or less."""
    signs = torch.linspace(-1, 1, torch.Size(space.scores_shape).numel()).sign()
    extreme = 30 * signs.view(1, *space.scores_shape).double()
    every = space.every(extreme.to(dtype))
    q = space.plain(extreme.to(dtype).repeat_interleave(len(every), 0).requires_grad_())
    q.sample = lambda sampler, samples: every[:, None]  # type: ignore[method-assign]
    estimator = kind.make(space, **settings)
    proposal = estimator.propose(q, torch.zeros(len(every), 0), Sampler())
    slopes = torch.linspace(-1, 1, extreme.numel(), dtype=dtype).view(space.point_shape)
    given = Evaluated(proposal.decoder_weight, slopes.expand(len(every), *space.point_shape))
    surrogate = estimator.combine(q, proposal, given).surrogate
    assert surrogate is not None
    (found,) = torch.autograd.grad(surrogate.sum(), q.scores)
    assert found.isfinite().all()
    if settings.get("gap_from") != "probability":  # which is not stable as it is published
        along = Problem(space, extreme[0], slopes.double().flatten())
        wanted = by_formula(along, linear, formula)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("score", [-1e3, -100.0, -30.0, -3.0, 0.0, 3.0, 30.0, 100.0])
@pytest.mark.parametrize("space", [Bits(1), Categoricals(1, 2)], ids=repr)
def test_a_gap_from_a_probability_has_its_limits(space: Space, score: float) -> None:
    """1 where it is small, and the log-odds, nearly, where it is close to one."""
    estimator = GappedStraightThrough.make(space, gap_from="probability")
    scores = torch.tensor([score] if isinstance(space, Bits) else [[score, 0.0]])[None, None]
    vertex = torch.tensor([1.0] if isinstance(space, Bits) else [[1.0, 0.0]])[None, None]
    found = torch.as_tensor(estimator.gap(scores.double(), vertex.double())).flatten()[0]
    p = torch.tensor(score, dtype=torch.float64).sigmoid()
    if score <= -30:
        wanted = torch.ones_like(p)
    else:
        wanted = torch.nn.functional.softplus(torch.tensor(score).double()) / p
    torch.testing.assert_close(found, wanted)


def forgets_the_temperature(
    self: Estimator, q: Distribution, proposal: Proposal, evaluated: Evaluated
) -> Estimate:
    right = super(FromVertices, self).combine(q, proposal, evaluated)  # type: ignore[misc, safe-super]
    assert right.surrogate is not None
    return replace(right, surrogate=right.surrogate * self.settings.temperature)  # type: ignore[attr-defined]


def diagonal_alone(self: Space, scores: Tensor) -> Tensor:
    p = scores.softmax(dim=-1).detach()
    moving = p * (1 - p) * scores
    return p + (moving - moving.detach())


def rectified(self: Space, scores: Tensor) -> PlainDistribution:
    return type(self).was_plain(self, scores.relu())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("case", "where", "name", "planted"),
    [
        (1, StraightThrough, "combine", forgets_the_temperature),
        (6, GappedStraightThrough, "combine", forgets_the_temperature),
        (0, Categoricals, "soft", diagonal_alone),
        (3, Categoricals, "pulled_back", lambda self, p, slope: p * (1 - p) * slope),
        (5, Categoricals, "soft", diagonal_alone),
        *[(case, Categoricals, "plain", rectified) for case in (0, 3, 5)],
        *[(case, FromVertices, "vertices", lambda self, q, sampler:
            self.space.point(q.mode(), q.scores.dtype)[:, None]) for case in (3, 5)],
        (5, Categoricals, "gapped", lambda self, scores, point, gap: scores + gap * point),
    ],
)  # fmt: skip
def test_what_is_planted_is_found(
    case: int, where: Any, name: str, planted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, settings, formula = CASES[case]
    monkeypatch.setattr(where, f"was_{name}", getattr(where, name), raising=False)
    problem = Problem.random(SEVERAL)
    check_formula(kind, settings, formula, problem)
    monkeypatch.setattr(where, name, planted)
    with pytest.raises(AssertionError, match="not close"):
        check_formula(kind, settings, formula, problem)


def joint_and_points(problem: Problem) -> tuple[Tensor, Tensor]:
    """Probabilities (M,) of every assignment, and their points (M, P)."""
    points = problem.point(problem.assignments())
    return (points @ problem.scores.flatten()).softmax(dim=0), points


@pytest.mark.parametrize("f", [linear, cubic, network], ids=lambda f: f.__name__)
@pytest.mark.parametrize("space", [SUBSET, SUBSETS], ids=repr)
def test_of_subsets_it_is_the_covariance_times_the_slope(space: Subsets, f: CostFunction) -> None:
    """The mean over every assignment, of the whole covariance: SIMPLE."""
    problem = Problem.random(space, seed=2)
    p, points = joint_and_points(problem)
    away = points - p @ points
    leaf = points.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(f(leaf, problem.theta.expand_as(leaf)).sum(), leaf)
    wanted = torch.einsum("m,mp,mq,q->p", p, away, away, p @ slopes).view_as(problem.scores)
    found = expectation(StraightThrough.make(space), problem, f)
    torch.testing.assert_close(found.scores, wanted)


@pytest.mark.parametrize("f", [linear, cubic, network], ids=lambda f: f.__name__)
def test_one_item_of_a_subset_is_a_category(f: CostFunction) -> None:
    one, other = Subsets(1, 4, 1), Categoricals(1, 4)
    problem = Problem.random(one, seed=2)
    found = expectation(StraightThrough.make(one), problem, f)
    as_category = Problem(other, problem.scores, problem.theta)
    wanted = expectation(StraightThrough.make(other), as_category, f)
    torch.testing.assert_close(found.scores, wanted.scores)


class AsIndependentBits(Subsets):
    """The derivative of a marginal is that of a bit alone."""

    def soft(self, scores: Tensor) -> Tensor:
        mu = super().soft(scores).detach()
        return mu + mu * (1 - mu) * (scores - scores.detach())


def test_a_covariance_that_is_its_diagonal_is_caught() -> None:
    right, mutant = Subsets(2, 3, 2), AsIndependentBits(2, 3, 2)
    check_exact_for(StraightThrough.make(right), right)
    with pytest.raises(AssertionError):
        check_exact_for(StraightThrough.make(mutant), mutant)
