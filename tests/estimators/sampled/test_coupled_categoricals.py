"""Coupled samples of categorical variables: their law, what they are of two categories, and where
they have less variance than independent ones."""

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from estimators import make, step
from estimators.base import Estimator, Evaluated
from estimators.sampled import coupled_categoricals
from estimators.sampled.arsm import ARSM, after_swaps
from estimators.sampled.coupled import ARM, ARMS, DisARM
from estimators.sampled.coupled_categoricals import (
    CARMS,
    ImportanceWeighted,
    TreeDisARM,
    halves,
    pair_weights,
)
from estimators.sampled.other_assignments import LeaveOneOut
from estimators.sampler import Sampler
from estimators.spaces import Bits, Categoricals
from tests.estimators.contract import (
    CATEGORICAL,
    FEW_CATEGORIES,
    FEW_SEVERAL,
    SEVERAL,
    CostFunction,
    Problem,
    check_expectation,
    check_joint_expectation,
    draws_of_a_row,
    exact,
    far_from_zero,
    network,
    run,
)
from tests.estimators.every_outcome import EveryOutcome
from tests.estimators.relaxed.test_relaxations import NODES, PAIR, Quadrature

Kind = type[Estimator]
STICK, TREE = {"form": "stick"}, {"form": "tree"}
PAIRS: list[tuple[Kind, dict[str, Any]]] = [
    (ImportanceWeighted, {}), (TreeDisARM, STICK), (TreeDisARM, TREE), (CARMS, {"samples": 2}),
]  # fmt: skip
FINITE = [*PAIRS, (CARMS, {"samples": 3})]
EVERY = [*FINITE, (ARSM, {})]


def outcomes(estimator: Estimator, problem: Problem, f: CostFunction) -> tuple[Tensor, Tensor]:
    """The probability of each outcome, and its estimate for the scores."""
    draws = draws_of_a_row(estimator.double(), problem, f)
    dealer = EveryOutcome(draws)
    found = run(estimator, problem, f, dealer, math.prod(draws)).scores
    return dealer.weight, found.flatten(1)


def variance(estimator: Estimator, problem: Problem, f: CostFunction) -> Tensor:
    weight, found = outcomes(estimator, problem, f)
    return weight @ (found - weight @ found).square()


def of_second(point: Tensor, theta: Tensor) -> Tensor:
    """Of pairs of categories, a cost that sees the second ones, as bits."""
    return network(point[:, 1::2], theta[:, 1::2])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("kind", "settings"), FINITE)
def test_two_categories_are_a_bit_draw_by_draw(
    kind: Kind, settings: dict[str, Any], seed: int
) -> None:
    """DisARM of the log-odds, or ARMS."""
    several = Problem.random(FEW_SEVERAL, seed)
    against = several.scores[:, 1] - several.scores[:, 0]
    bits = Problem(Bits(2), against, several.theta[1::2])
    three = settings.get("samples") == 3
    other = ARMS.make(Bits(2), samples=3) if three else DisARM.make(Bits(2))
    wanted_weight, wanted = outcomes(other, bits, network)
    weight, found = outcomes(kind.make(FEW_SEVERAL, **settings), several, of_second)
    torch.testing.assert_close(weight, wanted_weight)
    torch.testing.assert_close(found, torch.stack([-wanted, wanted], dim=2).flatten(1))


def test_arsm_of_two_categories_is_arm_draw_by_draw() -> None:
    problem = Problem.random(PAIR, seed=3)
    found = run(ARSM.make(PAIR), problem, of_second, Quadrature(), NODES).scores.flatten(1)
    # u is 1 less the π of the second category, whose log is that of the negative noise
    against = problem.scores[:, 0] - problem.scores[:, 1]
    bit = Problem(Bits(1), against, problem.theta[1::2])
    first = run(
        ARM.make(Bits(1)).double(), bit, lambda z, t: network(1 - z, t), Quadrature(), NODES
    )
    torch.testing.assert_close(found, torch.cat([first.scores, -first.scores], dim=1))


@pytest.mark.parametrize("space", [CATEGORICAL, SEVERAL], ids=repr)
def test_carms_with_two_samples_is_disarm_iw_draw_by_draw(space: Categoricals) -> None:
    problem = Problem.random(space)
    one, other = (
        outcomes(estimator, problem, network)
        for estimator in (ImportanceWeighted.make(space), CARMS.make(space, samples=2))
    )
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(left, right)


def test_carms_with_the_weights_of_independent_samples_is_rloo_draw_by_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    q = SEVERAL.plain(torch.randn(50, 2, 3, dtype=torch.float64, requires_grad=True))
    carms, rloo = (kind.make(SEVERAL, samples=4) for kind in (CARMS, LeaveOneOut))
    proposal = carms.propose(q, torch.zeros(50, 0), Sampler(torch.Generator().manual_seed(0)))
    costs = torch.randn(200, dtype=torch.float64)
    monkeypatch.setattr(
        coupled_categoricals, "pair_weights", lambda one, other, size: torch.ones_like(q.scores)
    )
    found, wanted = (
        torch.autograd.grad(estimate.surrogate.sum(), q.scores, retain_graph=True)[0]
        for estimate in (one.combine(q, proposal, Evaluated(costs)) for one in (carms, rloo))
        if estimate.surrogate is not None
    )
    torch.testing.assert_close(found, wanted)


SCORES = {
    "generic": [0.3, -1.2, 0.9, 0.1],
    "equal": [0.0, 0.0, 0.0, 0.0],
    "two that are certain": [30.0, -30.0, 30.0, -30.0],
    "one that is": [-30.0, -30.0, 30.0, -30.0],
}


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize(("kind", "settings"), FINITE)
def test_every_sample_is_one_of_q(
    kind: Kind, settings: dict[str, Any], scores: list[float]
) -> None:
    """And two that differ have the probability that their weight says."""
    given = torch.tensor(scores, dtype=torch.float64).view(1, 1, 4)
    estimator, p = kind.make(Categoricals(1, 4), **settings), given.softmax(dim=2).flatten()
    size = estimator.calls_per_row
    draws = [2**3] * size
    dealer = EveryOutcome(draws)
    q = Categoricals(1, 4).plain(given.expand(math.prod(draws), -1, -1))
    proposal = estimator.propose(q, torch.zeros(math.prod(draws), 0), dealer)
    z = torch.eye(4, dtype=torch.float64)[proposal.extras["z"].squeeze(2)]
    for sample in range(size):
        torch.testing.assert_close(dealer.weight @ z[:, sample], p, rtol=1e-9, atol=1e-30)
    if isinstance(estimator, coupled_categoricals.Weighted):
        one, other, order = (proposal.extras[name][0, 0] for name in ("one", "other", "order"))
        weight = pair_weights(one.view(1, 1, 3), other.view(1, 1, 3), size).flatten()
        for s, t in ((0, 1), (0, size - 1)):
            together = torch.einsum("b,bi,bj->ij", dealer.weight, z[:, s], z[:, t])
            wanted = p[:, None] * p / together
            for i, j in ((0, 1), (0, 3), (1, 2), (2, 3)):
                found = weight[min(order.tolist().index(i), order.tolist().index(j))]
                assert found.item() == pytest.approx(wanted[i, j].item(), rel=1e-9)


def test_weights_are_below_two_and_those_of_pairs_below_one() -> None:
    for scale in (0.0, 0.1, 1.0, 5.0, 30.0):
        for categories in (2, 3, 10, 32):
            generator = torch.Generator().manual_seed(categories)
            scores = scale * torch.randn(500, 1, categories, generator=generator).double()
            p = scores.softmax(dim=2).sort(dim=2).values
            after = p.flip(2).cumsum(dim=2).flip(2)[..., 1:]
            pair, four = (pair_weights(p[..., :-1], after, size) for size in (2, 4))
            assert (pair <= 1 - p[..., :1] + 1e-12).all()
            assert (four < 2).all()
            assert (four[..., :-1] > 0).all()


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("space", [FEW_CATEGORIES, SEVERAL], ids=repr)
@pytest.mark.parametrize(("kind", "settings"), FINITE)
def test_extreme_and_equal_scores(
    kind: Kind, space: Categoricals, settings: dict[str, Any], scores: list[float]
) -> None:
    given = torch.tensor([*scores, 30.0, 0.0], dtype=torch.float64)
    extreme = given[: space.variables * 3].view(space.variables, 3)
    problem = Problem(space, extreme, Problem.random(space).theta)
    check_expectation(kind.make(space, **settings), problem, network)


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("space", [FEW_CATEGORIES, SEVERAL], ids=repr)
def test_arsm_of_extreme_and_equal_scores(space: Categoricals, scores: list[float]) -> None:
    given = torch.tensor([*scores, 30.0, 0.0], dtype=torch.float64)
    extreme = given[: space.variables * 3].view(space.variables, 3)
    problem, draws = Problem(space, extreme, Problem.random(space).theta), 200_000
    sampler = Sampler(torch.Generator().manual_seed(0))
    found = run(ARSM.make(space).double(), problem, network, sampler, draws).scores
    error = found.mean(dim=0) - exact(ARSM.make(space), problem, network).scores
    limit = stats.norm.isf(0.001 / (2 * 8 * 6)) * found.std(dim=0) / draws**0.5
    assert (error.abs() <= limit + 1e-9).all()


@pytest.mark.parametrize(("kind", "settings"), PAIRS)
def test_a_batch_of_one(kind: Kind, settings: dict[str, Any]) -> None:
    check_joint_expectation(
        kind.make(FEW_CATEGORIES, **settings), [Problem.random(FEW_CATEGORIES)], network
    )


@pytest.mark.parametrize("space", [FEW_CATEGORIES, CATEGORICAL, SEVERAL], ids=repr)
@pytest.mark.parametrize(("kind", "settings"), EVERY)
def test_every_draw_leaves_out_what_no_gradient_has(
    kind: Kind, settings: dict[str, Any], space: Categoricals
) -> None:
    """It does not matter how high costs are, and over a variable's scores it sums to zero."""
    problem, estimator = Problem.random(space), kind.make(space, **settings).double()
    one, other = (
        run(estimator, problem, f, Sampler(torch.Generator().manual_seed(2)), 200).scores
        for f in (network, lambda point, theta: 100 + network(point, theta))
    )
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one.sum(dim=2), torch.zeros_like(one[..., 0]))


@pytest.mark.parametrize("f", [network, far_from_zero], ids=lambda f: f.__name__)
@pytest.mark.parametrize("space", [FEW_CATEGORIES, CATEGORICAL, SEVERAL], ids=repr)
@pytest.mark.parametrize(("kind", "settings"), FINITE)
def test_variance_is_below_that_of_as_many_independent_samples(
    kind: Kind, settings: dict[str, Any], space: Categoricals, f: CostFunction
) -> None:
    for seed in range(3):
        problem, estimator = Problem.random(space, seed), kind.make(space, **settings)
        rloo = LeaveOneOut.make(space, samples=estimator.calls_per_row)
        found, wanted = (variance(one, problem, f) for one in (estimator, rloo))
        assert found.sum() < wanted.sum()
        if kind is ImportanceWeighted and space.variables == 1:
            assert (found <= wanted).all()


def test_halves_are_as_deep_as_a_balanced_tree() -> None:
    for categories in range(2, 34):
        depth = halves(categories).abs().sum(dim=0)
        assert depth.min() == math.floor(math.log2(categories))
        assert depth.max() == math.ceil(math.log2(categories))


class RarestFirst(TreeDisARM):
    """The other way."""

    descending = False


@pytest.mark.parametrize("space", [FEW_CATEGORIES, Categoricals(1, 4)], ids=repr)
def test_sticks_of_the_likeliest_first_mostly_have_less_variance(space: Categoricals) -> None:
    ratios = []
    for seed in range(8):
        problem = Problem.random(space, seed)
        found, other = (
            variance(kind.make(space), problem, network).sum() for kind in (TreeDisARM, RarestFirst)
        )
        ratios.append((found / other).item())
    assert math.prod(ratios) ** (1 / len(ratios)) < 0.95


@pytest.mark.parametrize("space", [FEW_CATEGORIES, CATEGORICAL, SEVERAL], ids=repr)
def test_arsm_has_less_variance_than_two_independent_samples(space: Categoricals) -> None:
    for seed in range(3):
        problem = Problem.random(space, seed)
        sampler = Sampler(torch.Generator().manual_seed(seed))
        found = run(ARSM.make(space).double(), problem, network, sampler, 20_000).scores
        rloo = variance(LeaveOneOut.make(space, samples=2), problem, network)
        assert found.flatten(1).var(dim=0).sum() < rloo.sum()


@pytest.mark.parametrize("space", [Categoricals(1, 6), Categoricals(3, 4)], ids=repr)
def test_arsm_calls_for_each_assignment_once(space: Categoricals) -> None:
    estimator, rows = ARSM.make(space, entropy="sampled"), 40
    scores = torch.randn(rows, *space.scores_shape, generator=torch.Generator().manual_seed(0))
    q = space.plain(2 * scores)
    proposal = estimator.propose(q, torch.zeros(rows, 0), Sampler())
    assert proposal.decoder_weight is not None
    pairs = [(row, *z) for row, z in zip(proposal.row.tolist(), proposal.z.tolist(), strict=True)]
    assert len(set(pairs)) == len(pairs) < rows * estimator.calls_per_row
    swaps, place = estimator.swaps.shape[1], proposal.extras["place"]
    share = torch.bincount(place.flatten()) / swaps
    torch.testing.assert_close(proposal.decoder_weight, share)
    assert (proposal.row[place] == torch.arange(rows)[:, None]).all()
    best = (q.scores + proposal.extras["noise"]).argmax(dim=2)
    assert (proposal.z[place[:, 0]] == best).all()
    every = torch.arange(len(pairs))
    wanted = sum(q.scores.log_softmax(dim=2)[proposal.row, v, proposal.z[every, v]]
                 for v in range(space.variables))  # fmt: skip
    nothing = Evaluated(torch.zeros(len(pairs)))
    evaluated, log_q = step._with_log_q(estimator, nothing, q, proposal, 0.5, False)
    torch.testing.assert_close(log_q, wanted)
    torch.testing.assert_close(evaluated.costs, 0.5 * wanted)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("space", [PAIR, FEW_CATEGORIES, Categoricals(2, 7)], ids=repr)
def test_arsm_sees_what_is_best_after_each_swap(space: Categoricals, scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    scores, noise = torch.randn(2, 50, *space.scores_shape, generator=generator)
    swaps = ARSM.make(space).swaps
    found = after_swaps(scale * scores, noise, *swaps)
    for number, (m, j) in enumerate(swaps.T.tolist()):
        swapped = noise.clone()
        swapped[..., m], swapped[..., j] = noise[..., j], noise[..., m]
        assert torch.equal(found[..., number], (scale * scores + swapped).argmax(dim=2))


@pytest.mark.parametrize("space", [Categoricals(1, 5), Categoricals(2, 3)], ids=repr)
@pytest.mark.parametrize(("kind", "settings"), EVERY)
def test_float32_has_the_same_estimates(
    kind: Kind, settings: dict[str, Any], space: Categoricals
) -> None:
    """Where scores are certain, too, and where they are more certain than float64 can say."""
    estimator = kind.make(space, **settings)
    signs = torch.randn(60, *space.scores_shape, generator=torch.Generator().manual_seed(1)).sign()
    for scale in (0.0, 1.0, 30.0, 1e4):
        found = []
        for dtype in (torch.float64, torch.float32):
            q = space.plain((scale * signs).to(dtype).requires_grad_())
            sampler = Sampler(torch.Generator().manual_seed(0))
            proposal = estimator.propose(q, torch.zeros(60, 0), sampler)
            costs = (proposal.z * torch.tensor([1.0, -2.0])[: space.variables]).sum(dim=1).to(dtype)
            estimate = estimator.combine(q, proposal, Evaluated(costs))
            assert estimate.surrogate is not None
            assert estimate.surrogate.dtype == estimate.objective.dtype == dtype
            (gradient,) = torch.autograd.grad(estimate.surrogate.sum(), q.scores)
            assert gradient.isfinite().all()
            found.append((proposal.z, gradient))
        if kind is not ARSM:  # whose noise is another one
            assert torch.equal(found[0][0], found[1][0])
            torch.testing.assert_close(found[0][1].float(), found[1][1])


@pytest.mark.parametrize("name", ["disarm-iw", "disarm-tree", "carms", "arsm"])
def test_a_single_category_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} takes two categories at least: .* has one$"):
        make(name, Categoricals(3, 1))


class Unsorted(ImportanceWeighted):
    """The likeliest category breaks off first."""

    descending = True


def smoothed(one: Tensor, other: Tensor, size: int) -> Tensor:
    """Ratios that are kept from growing."""
    return 1.001 / (1 / pair_weights(one, other, size) + 0.001)


def test_weights_over_unsorted_sticks_are_caught() -> None:
    """Where one category has more than half, the others are never together."""
    scores = torch.tensor([[0.1, 1.9, 0.3]], dtype=torch.float64)
    problem = Problem(FEW_CATEGORIES, scores, Problem.random(FEW_CATEGORIES).theta)
    check_expectation(ImportanceWeighted.make(FEW_CATEGORIES), problem, network)
    with pytest.raises(AssertionError):
        check_expectation(Unsorted.make(FEW_CATEGORIES), problem, network)


@pytest.mark.parametrize(
    ("kind", "name", "planted"),
    [
        (CARMS, "pair_weights", smoothed),
        (CARMS, "ratio", lambda scores, size: torch.ones_like(scores)),
        (TreeDisARM, "opposite", lambda scores, bit: (bit[:, :, 0] - bit[:, :, 1]) / 2),
    ],
)
def test_what_is_planted_is_found(
    kind: Kind, name: str, planted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coupled_categoricals, name, planted)
    with pytest.raises(AssertionError):
        check_expectation(kind.make(SEVERAL), Problem.random(SEVERAL), network)
