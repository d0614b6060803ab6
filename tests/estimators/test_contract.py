"""Every registered estimator against exact enumeration."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from estimators.base import Estimator, Evaluated
from estimators.registry import all_estimators
from estimators.sampled.sum_and_sample import SumAndSample
from estimators.sampler import Sampler
from estimators.spaces import Bits, Space
from tests.estimators.contract import (
    BITS,
    CATEGORICAL,
    CHAIN,
    COSTS,
    FEATURES,
    FEW_BITS,
    FEW_CATEGORIES,
    FEW_SEVERAL,
    FEW_SUBSETS,
    FEW_TREES,
    SEVERAL,
    SUBSET,
    SUBSETS,
    TREES,
    CostFunction,
    Problem,
    check_any_batch,
    check_exact_for,
    check_expectation,
    check_joint_expectation,
    check_proposal,
    costs_of,
    exact,
    far_from_zero,
    network,
    run,
    spaces,
    steep,
    two_rows,
    warmed_up,
)
from tests.estimators.small import small_settings


def cases(*among: Space) -> list[Any]:
    """Every estimator, on the space variables that it takes of these, at small settings."""
    return [
        pytest.param(estimator, space, settings, id=f"{name}-{space}-{number}")
        for name, estimator in all_estimators().items()
        for space in spaces(estimator, among)
        for number, settings in enumerate(small_settings(estimator))
        if estimator.refusal(space, estimator.Settings(**settings)) is None
    ]


RIGHT_IN_EXPECTATION = {"exact", "unbiased", "scaled"}
"""The others have tests of their own, of what they are exact for."""


def as_set(case: Any) -> bool:
    """With the first of its settings."""
    return bool(case.id.endswith("-0"))


CASES = [*cases(CATEGORICAL, SEVERAL, BITS), *filter(as_set, cases(SUBSET, CHAIN, TREES))]
LISTED = [case for case in CASES if not case.values[0].own_model]
"""A z between assignments has no sum over these: tests/estimators/mixed/ has its quadrature."""
ACROSS_ROWS = {"sfe-shrunk"}
"""What their estimate for a row takes from other rows shows where these are other rows alone, and
not, as where a row is enumerated, its own other outcomes."""

ENUMERABLE = [
    case
    for case in LISTED
    if case.values[0].bias in RIGHT_IN_EXPECTATION and case.values[0].name not in ACROSS_ROWS
]
JOINTLY_ENUMERABLE = [
    case
    for case in cases(FEW_CATEGORIES, FEW_SEVERAL, FEW_BITS, FEW_SUBSETS, FEW_TREES)
    if case.values[0].bias in RIGHT_IN_EXPECTATION
    and not case.values[0].own_model
    and all(
        case.values[2].get(name) == small_settings(case.values[0])[0].get(name)
        for name in ("samples", "pairs")
    )
    and case.values[2].get("entropy") != "sampled"
]
"""At the least samples: more of them square the number of runs. λ is 0, so that it does not matter
where the entropy is."""


def make(estimator: type[Estimator], space: Space, settings: dict[str, object]) -> Estimator:
    torch.manual_seed(0)
    return estimator.make(space, features=FEATURES, **settings)


@pytest.mark.parametrize(("estimator", "space", "settings"), CASES)
def test_proposal_is_well_formed(
    estimator: type[Estimator], space: Space, settings: dict[str, object]
) -> None:
    check_proposal(make(estimator, space, settings), Problem.random(space))


@pytest.mark.parametrize("f", COSTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("estimator", "space", "settings"), [*filter(as_set, ENUMERABLE)])
def test_expected_estimate_is_exact(
    estimator: type[Estimator], space: Space, settings: dict[str, object], f: CostFunction
) -> None:
    for seed in range(1 if space in (SUBSET, CHAIN, TREES) else 2):  # whose sums take longest
        check_expectation(make(estimator, space, settings), Problem.random(space, seed), f)


@pytest.mark.parametrize(
    ("estimator", "space", "settings"), [case for case in ENUMERABLE if not as_set(case)]
)
def test_expected_estimate_is_exact_with_every_setting(
    estimator: type[Estimator], space: Space, settings: dict[str, object]
) -> None:
    """Of a cost that none is exact for by its kind, and one whose level and scale matter."""
    instance = make(estimator, space, settings)
    for seed, f in enumerate((network, lambda point, theta: 100 + steep(point, theta))):
        check_expectation(instance, Problem.random(space, seed), f)


@pytest.mark.parametrize(("estimator", "space", "settings"), CASES)
def test_a_biased_estimate_is_exact_for_what_it_says(
    estimator: type[Estimator], space: Space, settings: dict[str, object]
) -> None:
    check_exact_for(make(estimator, space, settings), space)


@pytest.mark.parametrize(
    ("estimator", "space", "settings"),
    [*filter(as_set, cases(SUBSETS))],
)
def test_several_structures_are_independent(
    estimator: type[Estimator], space: Space, settings: dict[str, object]
) -> None:
    """As variables are: what is exact for these is so for structures."""
    instance = make(estimator, space, settings)
    check_proposal(instance, Problem.random(space))
    check_exact_for(instance, space)
    if estimator.bias in RIGHT_IN_EXPECTATION and estimator.name not in ACROSS_ROWS:
        check_expectation(instance, Problem.random(space), network)


@pytest.mark.parametrize(("estimator", "space", "settings"), JOINTLY_ENUMERABLE)
def test_rows_of_a_batch_leave_each_other_unbiased(
    estimator: type[Estimator], space: Space, settings: dict[str, object]
) -> None:
    """With a cost whose σ is above 1, where NVIL's scale moves."""
    check_joint_expectation(make(estimator, space, settings), two_rows(space), steep)


@pytest.mark.parametrize("space", [Bits(1), FEW_CATEGORIES], ids=repr)
@pytest.mark.parametrize("name", sorted(ACROSS_ROWS))
def test_three_rows_of_a_batch_leave_each_other_unbiased(name: str, space: Space) -> None:
    """Which is where the other rows of one have a variance."""
    rows = [Problem.random(space, seed) for seed in (1, 2, 3)]
    check_joint_expectation(make(all_estimators()[name], space, {"samples": 2}), rows, steep)


@pytest.mark.parametrize(("estimator", "space", "settings"), [*filter(as_set, CASES)])
def test_chunks_change_nothing(
    estimator: type[Estimator], space: Space, settings: dict[str, object]
) -> None:
    problem = Problem.random(space)
    warm = warmed_up(make(estimator, space, settings), problem, network)
    whole, parts = (
        run(warm, problem, network, Sampler(torch.Generator().manual_seed(4)), 7, at_once)
        for at_once in (10**9, 3)
    )
    for name in ("value", "scores", "theta"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


@pytest.mark.parametrize(
    ("estimator", "space", "settings"),
    [case for case in CASES if as_set(case) and case.values[0].name not in ACROSS_ROWS],
)
def test_the_size_of_the_batch_changes_nothing(
    estimator: type[Estimator], space: Space, settings: dict[str, object]
) -> None:
    check_any_batch(make(estimator, space, settings), Problem.random(space), steep)


@pytest.mark.parametrize(
    ("estimator", "space", "settings"),
    [case for case in CASES if case.values[0].bias == "exact"],
)
def test_exact_sums_pass_gradcheck(
    estimator: type[Estimator], space: Space, settings: dict[str, object]
) -> None:
    instance = make(estimator, space, settings)
    problem = Problem.random(space)

    def value(scores: torch.Tensor) -> torch.Tensor:
        q = instance.distribution(scores)
        proposal = instance.propose(q, scores.new_zeros(1, 3), Sampler())
        own = network(problem.point(proposal.z), problem.theta.expand(len(proposal.z), -1))
        estimate = instance.combine(q, proposal, Evaluated(own))
        assert estimate.surrogate is not None
        return estimate.objective + (estimate.surrogate - estimate.surrogate.detach())

    assert torch.autograd.gradcheck(value, problem.scores[None].requires_grad_())


def test_sum_and_sample_of_a_row_that_is_certain() -> None:
    """What is left of the probability has underflowed: there is nothing to draw from."""
    estimator = SumAndSample.make(FEW_CATEGORIES, samples=2).double()
    scores = torch.tensor([[[1e4, 0, 0]], [[0, 0, 1e4]]], dtype=torch.float64, requires_grad=True)
    q = estimator.distribution(scores)
    sampler = Sampler(torch.Generator().manual_seed(0))
    proposal = estimator.propose(q, torch.zeros(2, FEATURES), sampler)
    (top, *others), weight = proposal.extras["z"].squeeze(2).T, proposal.decoder_weight
    assert top.tolist() == [0, 2]
    assert all((other != top).all() for other in others)
    assert weight is not None
    assert weight.tolist() == [1, 0, 0] * 2
    surrogate = estimator.combine(q, proposal, Evaluated(torch.ones_like(weight))).surrogate
    assert surrogate is not None
    (gradient,) = torch.autograd.grad(surrogate.sum(), scores)
    assert (gradient == 0).all()


def documented() -> dict[str, type[Estimator]]:
    """What docs/CONTRACT.md shows, which can be pasted into files as it is."""
    page = (Path(__file__).parents[2] / "docs" / "CONTRACT.md").read_text()
    names: dict[str, type[Estimator]] = {}
    estimators, _, _ = page.partition("## A task\n")
    for example in re.findall(r"```python\n(.*?)```", estimators, re.DOTALL):
        exec(example.replace("@register", ""), names)
    return names


def test_the_example_of_the_documentation_keeps_the_contract() -> None:
    estimator = documented()["HalfAndHalf"]
    assert small_settings(estimator) == [{"samples": 2}, {"samples": 4}]
    for space in spaces(estimator):
        check_proposal(make(estimator, space, {}), Problem.random(space))
        check_expectation(make(estimator, space, {}), Problem.random(space), network)
    for space in spaces(estimator, (FEW_CATEGORIES, FEW_BITS)):
        check_joint_expectation(make(estimator, space, {}), two_rows(space), network)


def test_the_example_with_slopes_is_exact_for_what_it_says() -> None:
    """And for nothing more: the check has power."""
    estimator = documented()["StraightThrough"]
    for space in spaces(estimator):
        instance = make(estimator, space, {})
        check_proposal(instance, Problem.random(space))
        check_exact_for(instance, space)
        with pytest.raises(AssertionError):
            check_expectation(instance, Problem.random(space), network)


DRAWS = 100_000
CONTINUOUS = {"arm", "arsm", "rebar", "relax", "relax-rebar"}
"""Their noise can't be enumerated: draws alone show their settings."""
SAMPLED = [
    case
    for case in LISTED
    if case.values[0].bias in {"unbiased", "scaled"}
    and (as_set(case) or case.values[0].name in CONTINUOUS)
]
COMPARISONS = len(LISTED) * (1 + 5 + 5)
LIMIT = stats.norm.isf(0.001 / (2 * COMPARISONS))
"""A z-score that all comparisons together exceed with a probability of at most 0.001."""


@pytest.mark.parametrize(("estimator", "space", "settings"), SAMPLED)
def test_mean_of_many_draws_is_exact(
    estimator: type[Estimator], space: Space, settings: dict[str, object]
) -> None:
    """With the real sampler: what enumeration takes for granted."""
    check_mean(make(estimator, space, settings), far_from_zero)


@pytest.mark.parametrize(
    ("estimator", "space", "settings"), [case for case in CASES if case.values[0].bias == "biased"]
)
def test_mean_of_many_draws_is_exact_for_what_it_says(
    estimator: type[Estimator], space: Space, settings: dict[str, object]
) -> None:
    """Where noise is continuous no enumeration finds it."""
    instance = make(estimator, space, settings)
    for f in costs_of(instance.exact_for, space):
        check_mean(instance, f)


def check_mean(estimator: Estimator, f: CostFunction) -> None:
    """No mean over draws is further from the exact estimate than chance has it."""
    problem = Problem.random(estimator.space, seed=5)
    warm = warmed_up(estimator, problem, f)
    wanted = exact(warm, problem, f)
    found = run(warm, problem, f, Sampler(torch.Generator().manual_seed(3)), DRAWS)
    for drawn, target in (
        (found.value[:, None], wanted.value[None]),
        ((found.scores / found.scale).flatten(1), wanted.scores.flatten()),
        (found.theta, wanted.theta),
    ):
        error = drawn.mean(dim=0) - target
        noise = drawn.std(dim=0) / DRAWS**0.5
        assert (error.abs() <= LIMIT * noise + 1e-7).all()
