"""Subsets of k items out of n, against formulas written out over all of them."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from estimators.sampled.score_function import ScoreFunction
from estimators.sampler import Sampler
from estimators.spaces import Categoricals, Subsets
from estimators.spaces.subsets import Chosen, ConditionalBernoulli
from tests.estimators.contract import Problem, check_expectation, network
from tests.estimators.every_outcome import EveryOutcome

ROWS = 5
SPACES = [
    Subsets(1, 3, 2),
    Subsets(1, 6, 3),
    Subsets(1, 6, 5),
    Subsets(1, 5, 1),
    Subsets(1, 4, 4),
    Subsets(1, 1, 1),
    Subsets(2, 4, 2),
    Subsets(3, 3, 1),
]
FINITE = {"rtol": 1e-10, "atol": 1e-12}


def some_scores(space: Subsets, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    s = 2 * torch.randn(ROWS, *space.scores_shape, generator=generator, dtype=torch.float64)
    return s.to(dtype).requires_grad_()


def written_out(space: Subsets) -> Tensor:
    """Every assignment (M, V, n), subset by subset."""
    each = [
        [float(i in subset) for i in range(space.items)]
        for subset in itertools.combinations(range(space.items), space.chosen)
    ]
    return torch.tensor([*itertools.product(each, repeat=space.variables)], dtype=torch.float64)


def log_joint(space: Subsets, s: Tensor) -> Tensor:
    """(B, M), in float64."""
    return torch.einsum("bvn,mvn->bm", s.double(), written_out(space)).log_softmax(dim=1)


def in_full(space: Subsets, s: Tensor) -> dict[str, Tensor]:
    """What a q has to give, by sums over every assignment."""
    log_p = log_joint(space, s)
    return {
        "log_prob": log_p,
        "joint": log_p.exp(),
        "marginals": torch.einsum("bm,mvn->bvn", log_p.exp(), written_out(space)),
        "entropy": -(log_p.exp() * log_p).sum(dim=1),
    }


def found(space: Subsets, s: Tensor, kind: type[ConditionalBernoulli]) -> dict[str, Tensor]:
    q, every = kind(space, s), written_out(space).to(s.dtype)
    return {
        "log_prob": q.log_prob(every.expand(len(s), *every.shape)),
        "joint": q.joint(),
        "marginals": q.marginals(),
        "entropy": q.entropy(),
    }


def check_values(space: Subsets, kind: type[ConditionalBernoulli] = ConditionalBernoulli) -> None:
    s = some_scores(space)
    values, wanted = found(space, s, kind), in_full(space, s)
    for name, value in values.items():
        torch.testing.assert_close(value, wanted[name], **FINITE)


def check_gradients(
    space: Subsets, kind: type[ConditionalBernoulli] = ConditionalBernoulli
) -> None:
    """Of a random combination of each."""
    s = some_scores(space)
    generator = torch.Generator().manual_seed(1)
    values, wanted = found(space, s, kind), in_full(space, s)
    for name, value in values.items():
        weight = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        one, other = (
            torch.autograd.grad((weight * of[name]).sum(), s, retain_graph=True)[0]
            for of in (values, wanted)
        )
        torch.testing.assert_close(one, other, **FINITE)


def check_samples(
    space: Subsets, kind: type[ConditionalBernoulli] = ConditionalBernoulli, samples: int = 1
) -> None:
    """The law of independent samples, from every outcome of what is drawn for them."""
    scores = some_scores(space).detach()[:1]
    recording = EveryOutcome.recording()
    kind(space, scores).sample(recording, samples)
    rows = math.prod(recording.draws)
    dealer = EveryOutcome(recording.draws)
    z = kind(space, scores.expand(rows, -1, -1)).sample(dealer, samples)
    same = (z[:, :, None] == written_out(space)).flatten(3).all(dim=3).double()
    law = dealer.weight.expand(rows)[:, None]
    joint = in_full(space, scores)["joint"][0]
    wanted = joint
    for sample in range(samples):
        law = (law[:, :, None] * same[:, sample, None]).flatten(1)
        wanted = joint if sample == 0 else (wanted[:, None] * joint).flatten()
    torch.testing.assert_close(law.sum(dim=0), wanted, **FINITE)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_values_are_those_of_sums_over_every_subset(space: Subsets) -> None:
    check_values(space)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_gradients_are_those_of_sums_over_every_subset(space: Subsets) -> None:
    check_gradients(space)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_every_subset_is_drawn_as_often_as_q_has_it(space: Subsets) -> None:
    check_samples(space)


def test_samples_are_independent() -> None:
    check_samples(Subsets(1, 4, 2), samples=2)


def test_subsets_are_drawn_as_often_by_the_real_sampler() -> None:
    space, draws = Subsets(1, 5, 2), 100_000
    s = some_scores(space).detach()[:1]
    z = space.plain(s).sample(Sampler(torch.Generator().manual_seed(0)), draws)[0]
    often = (z[:, None] == written_out(space)).flatten(2).all(dim=2).double().mean(dim=0)
    p = in_full(space, s)["joint"][0]
    limit = stats.norm.isf(0.0005 / len(p))
    assert ((often - p).abs() < limit * (p * (1 - p) / draws).sqrt()).all()


class GumbelTopK(ConditionalBernoulli):
    """Draws one item after the other in proportion to their weights, as Gumbel noise does."""

    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        p = self.scores.detach().softmax(dim=2)[:, None].repeat(1, samples, 1, 1)
        drawn = torch.zeros_like(p)
        for _ in range(self.space.chosen):
            left = (p * (1 - drawn)).flatten(1, 2)
            item = sampler.categorical(left, 1).view(*p.shape[:3], 1)
            drawn = drawn.scatter(3, item, 1)
        return drawn


class EntropyOfSoftmax(ConditionalBernoulli):
    """That of k independent categories."""

    def entropy(self) -> Tensor:
        p = self.scores.softmax(dim=2)
        return -self.space.chosen * torch.special.xlogy(p, p).sum(dim=(1, 2))


class EntropyWithoutTheFirstItems(ConditionalBernoulli):
    """The recursion starts after k items, at zero."""

    def entropy(self) -> Tensor:
        log_p, marginals = self._chosen.log_p, self._chosen.marginals
        terms = marginals.on * log_p.on + marginals.off * log_p.off
        before = self._chosen.counts[..., self.space.chosen, -1]
        late = terms[..., self.space.chosen :].sum(dim=2)
        return (self._chosen.log_total - before - late).sum(dim=1)


class FixedMarginals(ConditionalBernoulli):
    """They have no derivative."""

    def marginals(self) -> Tensor:
        return super().marginals().detach() + 0 * self.scores


class DerivativeOfIndependentBits(ConditionalBernoulli):
    """The covariance of the marginals has its diagonal alone."""

    def marginals(self) -> Tensor:
        mu = super().marginals().detach()
        return mu + mu * (1 - mu) * (self.scores - self.scores.detach())


@pytest.mark.parametrize(
    ("check", "mutant"),
    [
        (check_samples, GumbelTopK),
        (check_values, EntropyOfSoftmax),
        (check_values, EntropyWithoutTheFirstItems),
        (check_gradients, FixedMarginals),
        (check_gradients, DerivativeOfIndependentBits),
    ],
)
def test_planted_mistakes_are_caught(
    check: Callable[..., None], mutant: type[ConditionalBernoulli]
) -> None:
    for space in (Subsets(1, 3, 2), Subsets(2, 4, 2)):
        check(space)
        with pytest.raises(AssertionError):
            check(space, mutant)


class DrawnWithNoise(Subsets):
    """Samples are not those of q."""

    def plain(self, scores: Tensor) -> GumbelTopK:
        return GumbelTopK(self, scores)


def test_the_contract_finds_samples_that_are_not_those_of_q() -> None:
    right, mutant = Subsets(1, 3, 2), DrawnWithNoise(1, 3, 2)
    check_expectation(ScoreFunction.make(right), Problem.random(right), network)
    with pytest.raises(AssertionError):
        check_expectation(ScoreFunction.make(mutant), Problem.random(mutant), network)


def test_one_large_weight_in_three() -> None:
    """Two of three items with weights 5, 1, 1: Gumbel top-k would give 20/42, 20/42 and 2/42."""
    s = torch.tensor([[[5.0, 1, 1]]], dtype=torch.float64).log()
    wanted = torch.tensor([[5 / 11, 5 / 11, 1 / 11]], dtype=torch.float64)
    torch.testing.assert_close(Subsets(1, 3, 2).plain(s).joint(), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [30, 1e4])
@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_large_scores_give_numbers_that_are_right(
    space: Subsets, scale: float, dtype: torch.dtype
) -> None:
    """Values and gradients, also next to ties and to small differences."""
    generator = torch.Generator().manual_seed(0)
    moved = torch.randint(-1, 2, (200, *space.scores_shape), generator=generator)
    s = scale * moved.to(dtype)
    s[100:] += torch.randint(-4, 5, s[100:].shape, generator=generator) / 4
    s.requires_grad_()
    values, wanted = found(space, s, ConditionalBernoulli), in_full(space, s)
    digits = {"rtol": 10 * torch.finfo(dtype).eps, "atol": 40 * torch.finfo(dtype).eps}
    for name, value in values.items():
        torch.testing.assert_close(value.double(), wanted[name], **digits)
        one, other = (
            torch.autograd.grad(of[name].square().sum(), s, retain_graph=True)[0]
            for of in (values, wanted)
        )
        largest = max(1.0, float(wanted[name].detach().abs().max()))
        close = {"rtol": 1e2 * torch.finfo(dtype).eps, "atol": 1e2 * torch.finfo(dtype).eps}
        torch.testing.assert_close(one / largest, other / largest, **close)


def test_samples_of_large_scores_are_subsets() -> None:
    space = Subsets(2, 7, 3)
    s = 1e4 * torch.randn(100, 2, 7, generator=torch.Generator().manual_seed(0))
    z = space.plain(s).sample(Sampler(torch.Generator().manual_seed(0)), 5)
    assert ((z == 0) | (z == 1)).all()
    assert (z.sum(dim=3) == 3).all()
    assert torch.equal(z, space.best(s)[:, None].expand_as(z))


def test_a_level_makes_no_difference() -> None:
    """Of scores that it does not round."""
    space = Subsets(1, 6, 3)
    s = (8 * some_scores(space, torch.float32)).detach().round() / 8
    for name, value in found(space, s + 2.0**16, ConditionalBernoulli).items():
        torch.testing.assert_close(value, found(space, s, ConditionalBernoulli)[name])


@pytest.mark.parametrize(("items", "chosen"), [(10, 5), (100, 10), (300, 299)])
def test_equal_scores_make_all_subsets_alike(items: int, chosen: int) -> None:
    space = Subsets(2, items, chosen)
    q = space.plain(torch.full((1, 2, items), 7.0, dtype=torch.float64))
    torch.testing.assert_close(q.marginals(), torch.full_like(q.scores, chosen / items))
    log_count = q.scores.new_tensor([space.log_assignments])
    torch.testing.assert_close(q.entropy(), log_count)
    torch.testing.assert_close(q.log_prob(q.mode()[:, None])[:, 0], -log_count)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_equal_items_the_first_are_best(dtype: torch.dtype) -> None:
    space = Subsets(1, 40, 3)
    s = torch.zeros(1, 40, dtype=dtype)
    s[0, [30, 7]] = 1.0
    assert space.best(s).nonzero()[:, 1].tolist() == [0, 7, 30]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_the_best_subset_is_the_best_of_all(space: Subsets) -> None:
    s = some_scores(space)
    every = written_out(space)
    assert torch.equal(space.best(s), every[log_joint(space, s).argmax(dim=1)])
    assert torch.equal(space.plain(s).mode(), space.best(s))
    assert torch.equal(space.every(s), every)


def test_between_assignments_log_prob_is_linear() -> None:
    space = Subsets(2, 4, 2)
    s, every = some_scores(space), written_out(space)
    q = space.plain(s)
    weight = torch.rand(len(every), dtype=torch.float64).softmax(dim=0)
    mean = torch.einsum("m,mvn->vn", weight, every).expand(ROWS, 1, -1, -1)
    wanted = q.log_prob(every.expand(ROWS, *every.shape)) @ weight
    torch.testing.assert_close(q.log_prob(mean)[:, 0], wanted)


@pytest.mark.parametrize("variables", [1, 2])
def test_one_of_n_items_is_a_category(variables: int) -> None:
    subsets, categories = Subsets(variables, 4, 1), Categoricals(variables, 4)
    s = some_scores(subsets)
    one, other = subsets.plain(s), categories.plain(s)
    torch.testing.assert_close(one.joint(), other.joint())
    torch.testing.assert_close(one.entropy(), other.entropy())
    torch.testing.assert_close(one.marginals(), other.marginals())
    for part in ("soft", "nearest", "centred"):
        torch.testing.assert_close(getattr(subsets, part)(s), getattr(categories, part)(s))
    for fact in ("count", "log_assignments", "dimension", "noise_samples_q"):
        assert getattr(subsets, fact) == getattr(categories, fact)


def test_all_of_n_items_is_one_assignment() -> None:
    q = Subsets(2, 3, 3).plain(some_scores(Subsets(2, 3, 3)))
    assert q.sample(Sampler(), 2).eq(1).all()
    assert q.support_sizes.tolist() == [1] * ROWS
    torch.testing.assert_close(q.entropy(), torch.zeros_like(q.entropy()))


def test_support_sizes_are_counted_however_many_there_are() -> None:
    large = Subsets(50, 100, 50).plain(torch.zeros(2, 50, 100))
    assert large.support_sizes.tolist() == [math.inf] * 2
    assert Subsets(2, 6, 3).plain(torch.zeros(1, 2, 6)).support_sizes.tolist() == [400]


@pytest.mark.parametrize("arguments", [(0, 3, 2), (1, 3, 0), (1, 3, 4), (1, 0, 0), (1, 3, -1)])
def test_numbers_that_make_no_sense_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="choose from 1 to all"):
        Subsets(*arguments)


def test_more_than_can_be_listed_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^the 137846528820 assignments .* too many"):
        Subsets(1, 40, 20).every(torch.zeros(1))


def test_a_row_costs_as_many_steps_as_items() -> None:
    """What is kept of a row has n + 1 times k + 1 numbers."""
    assert Chosen(torch.zeros(2, 100), 7).counts.shape == (2, 101, 8)
