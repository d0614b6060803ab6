"""Chains of states, against formulas written out over all of them."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from estimators.base import Estimator
from estimators.oracles.differences import IMLE, AdaptiveIMLE
from estimators.oracles.identity import Identity
from estimators.oracles.perturbed import Perturbed
from estimators.oracles.projected import Spigot
from estimators.sampled.score_function import ScoreFunction
from estimators.sampler import Sampler
from estimators.spaces import Categoricals, Chains
from estimators.spaces.chains import MarkovChain
from tests.estimators.contract import Problem, check_expectation, network, run
from tests.estimators.every_outcome import EveryOutcome

ROWS = 5
SPACES = [
    Chains(1, 1),
    Chains(1, 4),
    Chains(4, 1),
    Chains(2, 3),
    Chains(3, 2),
    Chains(4, 3),
    Chains(5, 2),
]
FINITE = {"rtol": 1e-10, "atol": 1e-12}


def some_scores(space: Chains, dtype: torch.dtype = torch.float64, rows: int = ROWS) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    s = 2 * torch.randn(rows, *space.scores_shape, generator=generator, dtype=torch.float64)
    return s.to(dtype).requires_grad_()


def written_out(space: Chains) -> Tensor:
    """Every assignment (M, T)."""
    return torch.tensor([*itertools.product(range(space.states), repeat=space.length)])


def points(space: Chains) -> Tensor:
    """Theirs (M, P), entry by entry."""
    found = torch.zeros(space.count, *space.scores_shape, dtype=torch.float64)
    for point, z in zip(found, written_out(space).tolist(), strict=True):
        unaries, transitions = space.split(point)  # which are views
        for place, state in enumerate(z):
            unaries[place, state] = 1
        for place, (state, following) in enumerate(itertools.pairwise(z)):
            transitions[place, state, following] = 1
    return found


def log_joint(space: Chains, s: Tensor) -> Tensor:
    """(B, M), in float64."""
    return (s.double() @ points(space).T).log_softmax(dim=1)


def in_full(space: Chains, s: Tensor) -> dict[str, Tensor]:
    """What a q has to give, by sums over every assignment."""
    log_p = log_joint(space, s)
    return {
        "log_prob": log_p,
        "joint": log_p.exp(),
        "marginals": log_p.exp() @ points(space),
        "entropy": -(log_p.exp() * log_p).sum(dim=1),
    }


def found(space: Chains, s: Tensor, kind: type[MarkovChain] = MarkovChain) -> dict[str, Tensor]:
    q, every = kind(space, s), written_out(space)
    return {
        "log_prob": q.log_prob(every.expand(len(s), *every.shape)),
        "joint": q.joint(),
        "marginals": q.marginals(),
        "entropy": q.entropy(),
    }


def check_values(space: Chains, kind: type[MarkovChain] = MarkovChain) -> None:
    s = some_scores(space)
    values, wanted = found(space, s, kind), in_full(space, s)
    for name, value in values.items():
        torch.testing.assert_close(value, wanted[name], **FINITE)


def check_gradients(space: Chains, kind: type[MarkovChain] = MarkovChain) -> None:
    """Of a random combination of each, and those of a random combination of these."""
    s = some_scores(space)
    generator = torch.Generator().manual_seed(1)
    values, wanted = found(space, s, kind), in_full(space, s)
    for name, value in values.items():
        weight = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        direction = torch.randn(s.shape, generator=generator, dtype=torch.float64)
        first = [
            torch.autograd.grad((weight * of[name]).sum(), s, create_graph=True)[0]
            for of in (values, wanted)
        ]
        torch.testing.assert_close(*first, **FINITE)
        second = [
            torch.autograd.grad((direction * of).sum(), s, retain_graph=True)[0] for of in first
        ]
        torch.testing.assert_close(*second, **FINITE)


def check_samples(space: Chains, kind: type[MarkovChain] = MarkovChain, samples: int = 1) -> None:
    """The law of independent samples, from every outcome of what is drawn for them."""
    scores = some_scores(space).detach()[:1]
    recording = EveryOutcome.recording()
    kind(space, scores).sample(recording, samples)
    rows = math.prod(recording.draws)
    dealer = EveryOutcome(recording.draws)
    z = kind(space, scores.expand(rows, -1)).sample(dealer, samples)
    same = (z[:, :, None] == written_out(space)).all(dim=3).double()
    law = dealer.weight.expand(rows)[:, None]
    joint = in_full(space, scores)["joint"][0]
    wanted = joint
    for sample in range(samples):
        law = (law[:, :, None] * same[:, sample, None]).flatten(1)
        wanted = joint if sample == 0 else (wanted[:, None] * joint).flatten()
    torch.testing.assert_close(law.sum(dim=0), wanted, **FINITE)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_values_are_those_of_sums_over_every_chain(space: Chains) -> None:
    check_values(space)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_first_and_second_derivatives_are_those_of_sums_over_every_chain(space: Chains) -> None:
    check_gradients(space)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_every_chain_is_drawn_as_often_as_q_has_it(space: Chains) -> None:
    check_samples(space)


def test_samples_are_independent() -> None:
    check_samples(Chains(2, 2), samples=2)


def test_chains_are_drawn_as_often_by_the_real_sampler() -> None:
    space, draws = Chains(3, 3), 100_000
    s = some_scores(space).detach()[:1]
    z = space.plain(s).sample(Sampler(torch.Generator().manual_seed(0)), draws)[0]
    often = (z[:, None] == written_out(space)).all(dim=2).double().mean(dim=0)
    p = in_full(space, s)["joint"][0]
    limit = stats.norm.isf(0.0005 / len(p))
    assert ((often - p).abs() < limit * (p * (1 - p) / draws).sqrt()).all()


class PerturbAndMAP(MarkovChain):
    """Draws each state in proportion to its marginal, whatever the one before."""

    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        return sampler.categorical(self.space.split(self.marginals().detach()).unaries, samples)


class FilteredTheOtherWay(MarkovChain):
    """Draws each state given the one before, but knows nothing of those that follow."""

    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        unaries, transitions = self.space.split(self.scores.detach())
        z = [sampler.categorical(unaries[:, 0].softmax(dim=1), samples)]
        row = torch.arange(len(unaries))[:, None]
        for place in range(1, self.space.length):
            logits = transitions[row, place - 1, z[-1]] + unaries[:, None, place]
            z.append(sampler.categorical(logits.softmax(dim=2), 1).squeeze(1))
        return torch.stack(z, dim=2)


class EntropyOfUnaries(MarkovChain):
    """That of independent states with the same marginals."""

    def entropy(self) -> Tensor:
        p = self.space.split(self.marginals()).unaries
        return -torch.special.xlogy(p, p).sum(dim=(1, 2))


class EntropyAtFixedMarginals(MarkovChain):
    """Its gradient is without what it owes to them."""

    def entropy(self) -> Tensor:
        log_q = self.space.join(*self._log_q)
        return -(self.marginals().detach() * log_q).sum(dim=1)


class FixedMarginals(MarkovChain):
    """They have no derivative."""

    def marginals(self) -> Tensor:
        return super().marginals().detach() + 0 * self.scores


class DerivativeOfIndependentEntries(MarkovChain):
    """The covariance of the marginals has its diagonal alone."""

    def marginals(self) -> Tensor:
        mu = super().marginals().detach()
        return mu + mu * (1 - mu) * (self.scores - self.scores.detach())


@pytest.mark.parametrize(
    ("check", "mutant"),
    [
        (check_samples, PerturbAndMAP),
        (check_samples, FilteredTheOtherWay),
        (check_values, EntropyOfUnaries),
        (check_gradients, EntropyAtFixedMarginals),
        (check_gradients, FixedMarginals),
        (check_gradients, DerivativeOfIndependentEntries),
    ],
)
def test_planted_mistakes_are_caught(check: Callable[..., None], mutant: type[MarkovChain]) -> None:
    for space in (Chains(2, 2), Chains(3, 3)):
        check(space)
        with pytest.raises(AssertionError):
            check(space, mutant)


class DrawnWithoutLookingAhead(Chains):
    """Samples are not those of q."""

    def plain(self, scores: Tensor) -> MarkovChain:
        return FilteredTheOtherWay(self, scores)


def test_the_contract_finds_samples_that_are_not_those_of_q() -> None:
    right, mutant = Chains(2, 2), DrawnWithoutLookingAhead(2, 2)
    check_expectation(ScoreFunction.make(right), Problem.random(right), network)
    with pytest.raises(AssertionError):
        check_expectation(ScoreFunction.make(mutant), Problem.random(mutant), network)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [30, 1e4])
@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_large_scores_give_numbers_that_are_right(
    space: Chains, scale: float, dtype: torch.dtype
) -> None:
    """Values and gradients, also next to ties and to small differences."""
    generator = torch.Generator().manual_seed(0)
    moved = torch.randint(-1, 2, (200, *space.scores_shape), generator=generator)
    s = scale * moved.to(dtype)
    s[100:] += torch.randn(s[100:].shape, generator=generator)  # which sums in float32 would round
    s.requires_grad_()
    values, wanted = found(space, s), in_full(space, s)
    digits = {"rtol": 10 * torch.finfo(dtype).eps, "atol": 40 * torch.finfo(dtype).eps}
    if dtype == torch.float64:  # where those that are wanted have lost digits, too
        digits["atol"] = 40 * scale * torch.finfo(dtype).eps
    for name, value in values.items():
        torch.testing.assert_close(value.double(), wanted[name], **digits)
        one, other = (
            torch.autograd.grad(of[name].square().sum(), s, retain_graph=True)[0]
            for of in (values, wanted)
        )
        largest = max(1.0, float(wanted[name].detach().abs().max()))
        close = {"rtol": 1e2 * torch.finfo(dtype).eps, "atol": 10 * digits["atol"]}
        torch.testing.assert_close(one / largest, other / largest, **close)


def test_samples_of_large_scores_are_the_best_chain() -> None:
    space = Chains(7, 3)
    s = 1e4 * torch.randn(100, *space.scores_shape, generator=torch.Generator().manual_seed(0))
    z = space.plain(s).sample(Sampler(torch.Generator().manual_seed(0)), 5)
    assert torch.equal(z, space.best(s)[:, None].expand_as(z))


def test_a_level_makes_no_difference() -> None:
    """Of scores that it does not round."""
    space = Chains(4, 3)
    s = (8 * some_scores(space, torch.float32)).detach().round() / 8
    for name, value in found(space, s + 2.0**16).items():
        torch.testing.assert_close(value, found(space, s)[name])


@pytest.mark.parametrize(("length", "states"), [(2, 5), (40, 8), (300, 2)])
def test_equal_scores_make_all_chains_alike(length: int, states: int) -> None:
    space = Chains(length, states)
    q = space.plain(torch.full((1, *space.scores_shape), 7.0, dtype=torch.float64))
    unaries, transitions = space.split(q.marginals())
    torch.testing.assert_close(unaries, torch.full_like(unaries, 1 / states))
    torch.testing.assert_close(transitions, torch.full_like(transitions, 1 / states**2))
    log_count = q.scores.new_tensor([space.log_assignments])
    torch.testing.assert_close(q.entropy(), log_count)
    torch.testing.assert_close(q.log_prob(q.mode()[:, None])[:, 0], -log_count)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_the_best_chain_is_the_best_of_all(space: Chains) -> None:
    s, every = some_scores(space), written_out(space)
    assert torch.equal(space.best(s), every[log_joint(space, s).argmax(dim=1)])
    assert torch.equal(space.plain(s).mode(), space.best(s))
    assert torch.equal(space.every(s), every)
    assert torch.equal(space.point(every, torch.float64), points(space))


def test_between_assignments_log_prob_is_linear() -> None:
    space = Chains(3, 3)
    s, every = some_scores(space), written_out(space)
    q = space.plain(s)
    weight = torch.rand(len(every), dtype=torch.float64).softmax(dim=0)
    mean = (weight @ points(space)).expand(ROWS, 1, -1)
    wanted = q.log_prob(every.expand(ROWS, *every.shape)) @ weight
    torch.testing.assert_close(q.log_prob(mean)[:, 0], wanted)


def test_one_place_is_a_category() -> None:
    chains, categories = Chains(1, 4), Categoricals(1, 4)
    s = some_scores(chains)
    one, other = chains.plain(s), categories.plain(s[:, None])
    torch.testing.assert_close(one.joint(), other.joint())
    torch.testing.assert_close(one.entropy(), other.entropy())
    torch.testing.assert_close(one.marginals(), other.marginals()[:, 0])
    for part in ("soft", "nearest", "centred"):
        alike = getattr(categories, part)(s[:, None])[:, 0]
        torch.testing.assert_close(getattr(chains, part)(s), alike, rtol=0, atol=1e-6)
    for fact in ("count", "log_assignments", "dimension", "noise_samples_q"):
        assert getattr(chains, fact) == getattr(categories, fact)


def test_without_transitions_states_are_independent() -> None:
    chains, categories = Chains(4, 3), Categoricals(4, 3)
    unaries = chains.split(some_scores(chains)).unaries
    s = chains.join(unaries, unaries.new_zeros(3, 3))
    torch.testing.assert_close(chains.plain(s).joint(), categories.plain(unaries).joint())
    torch.testing.assert_close(chains.plain(s).entropy(), categories.plain(unaries).entropy())


def test_parts_are_joined_as_they_were_split() -> None:
    space = Chains(3, 2)
    s = some_scores(space)
    assert torch.equal(space.join(*space.split(s)), s)
    unaries, shared = space.split(s).unaries, torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double()
    transitions = space.split(space.join(unaries, shared)).transitions
    assert torch.equal(transitions, shared.expand(ROWS, 2, 2, 2))


LONG = Chains(5, 3)


def chains_with_an_end(length: int, dtype: torch.dtype) -> tuple[Chains, Tensor, Tensor]:
    """A shorter chain with its scores, and those of a longer one with the same length, from a leaf
    that has numbers past it."""
    short = Chains(length, LONG.states)
    leaf = some_scores(LONG, dtype)
    unaries, transitions = LONG.split(leaf)
    s = short.join(unaries[:, :length], transitions[:, : length - 1])
    return short, s, leaf


def up_to(length: int, vectors: Tensor) -> Tensor:
    """The part of a shorter chain."""
    unaries, transitions = LONG.split(vectors)
    return Chains(length, LONG.states).join(
        unaries[..., :length, :], transitions[..., : length - 1, :, :]
    )


def past_the_end(length: int) -> Tensor:
    """The entries (P,) of the longer chain that the shorter one does not have."""
    entries = torch.arange(LONG.scores_shape[0], dtype=torch.float64)
    return ~torch.isin(entries, up_to(length, entries))


def lengths(length: int) -> Tensor:
    return torch.full((ROWS,), length)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1, 1e4])
@pytest.mark.parametrize("length", [1, 2, 4, 5])
def test_a_chain_with_an_end_is_the_shorter_chain(
    length: int, scale: float, dtype: torch.dtype
) -> None:
    """To the last digits, as sums may be in another order; with no gradient past its end."""
    digits = dict.fromkeys(("rtol", "atol"), 200 * torch.finfo(dtype).eps)
    short, s, leaf = chains_with_an_end(length, dtype)
    masked = LONG.masked(scale * leaf, lengths(length))
    one, other = LONG.plain(masked), short.plain(scale * s)
    every = written_out(short)
    padded = torch.nn.functional.pad(every, (0, LONG.length - length))
    past = past_the_end(length)
    for pair in (
        (one.entropy(), other.entropy()),
        (
            one.log_prob(padded.expand(ROWS, *padded.shape)),
            other.log_prob(every.expand(ROWS, *every.shape)),
        ),
        (up_to(length, one.marginals()), other.marginals()),
    ):
        torch.testing.assert_close(*pair, **digits)
        slopes = [torch.autograd.grad(of.square().sum(), leaf, retain_graph=True)[0] for of in pair]
        torch.testing.assert_close(*slopes, **digits)
        assert (slopes[0][:, past] == 0).all()
    torch.testing.assert_close(one.joint().sum(dim=1), torch.ones(ROWS, dtype=dtype))
    zeros = LONG.every(leaf)[:, length:].any(dim=1)
    assert (one.joint()[:, zeros] == 0).all()
    assert torch.equal(LONG.best(masked)[:, :length], short.best(scale * s))
    assert (LONG.best(masked)[:, length:] == 0).all()
    draws = [q.sample(Sampler(torch.Generator().manual_seed(0)), 50) for q in (one, other)]
    assert (draws[0][:, :, length:] == 0).all()
    assert {*map(tuple, draws[0][0, :, :length].tolist())} <= {*map(tuple, every.tolist())}
    count = min(4, short.count)
    (z, p), (short_z, short_p) = (
        LONG.topk_sparsemax(masked, count),
        short.topk_sparsemax(scale * s, count),
    )
    assert torch.equal(z[:, :, :length], short_z)
    assert (z[:, :, length:] == 0).all()
    torch.testing.assert_close(p, short_p, **digits)


class DealtAsOfTheLonger(Sampler):
    """Noise of the longer chain, or its part of the shorter one."""

    def __init__(self, length: int | None) -> None:
        super().__init__()
        self.length = length

    def gumbel(self, like: Tensor, samples: int) -> Tensor:
        generator = Sampler(torch.Generator().manual_seed(0))
        noise = generator.gumbel(like.new_zeros(1, *LONG.scores_shape), samples)
        noise = noise if self.length is None else up_to(self.length, noise)
        return noise.expand(len(like), *noise.shape[1:]).clone()


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize(
    "estimator",
    [
        Identity.make(LONG, samples=3),
        IMLE.make(LONG, samples=3),
        AdaptiveIMLE.make(LONG, samples=3, start=1.0),
        Perturbed.make(LONG),
        Spigot.make(LONG, target="spigot"),
        Spigot.make(LONG, target="ce"),
        Spigot.make(LONG, target="eg"),
    ],
    ids=lambda estimator: f"{estimator.name}-{getattr(estimator.settings, 'target', '')}",
)
def test_through_an_oracle_an_end_is_that_of_the_shorter_chain(
    estimator: Estimator, length: int
) -> None:
    """Noise, what is centred, the nearest point, and norms of scores do not see what is past it."""
    short, s, leaf = chains_with_an_end(length, torch.float64)
    masked = LONG.masked(leaf, lengths(length)).detach()
    theta = torch.linspace(-1, 2, LONG.scores_shape[0], dtype=torch.float64).cos()
    same = type(estimator)(short, estimator.settings)
    one, other = (
        run(of.double(), Problem(of.space, scores[0].detach(), weight), quartic, sampler, 1)
        for of, scores, weight, sampler in (
            (estimator, masked, theta, DealtAsOfTheLonger(None)),
            (same, s, up_to(length, theta), DealtAsOfTheLonger(length)),
        )
    )
    torch.testing.assert_close(one.value, other.value)
    torch.testing.assert_close(up_to(length, one.scores), other.scores, rtol=1e-5, atol=1e-6)


def quartic(point: Tensor, theta: Tensor) -> Tensor:
    """Of what the first place has, which is there in a chain of any length."""
    return 3 * ((point * theta)[:, : LONG.states].sum(dim=1) - 0.3) ** 4 + point[:, 1]


@pytest.mark.parametrize("length", [1, 2, 4])
def test_what_is_centred_and_nearest_has_the_end_that_it_is_marked_with(length: int) -> None:
    short, s, leaf = chains_with_an_end(length, torch.float64)
    masked = LONG.masked(leaf, lengths(length)).detach()
    past = past_the_end(length)
    centred = LONG.centred(masked)
    torch.testing.assert_close(up_to(length, centred), short.centred(s).detach())
    assert (centred[:, past] == 0).all()
    nearest = LONG.nearest(masked)
    torch.testing.assert_close(up_to(length, nearest), short.nearest(s), rtol=0, atol=2e-6)
    unaries, transitions = LONG.split(nearest)
    assert (unaries[:, length:, 0] == 1).all()
    torch.testing.assert_close(transitions.sum(dim=3), unaries[:, :-1], rtol=0, atol=2e-6)
    torch.testing.assert_close(transitions.sum(dim=2), unaries[:, 1:], rtol=0, atol=2e-6)


def test_rows_have_lengths_of_their_own() -> None:
    s = some_scores(LONG)
    mixed = torch.tensor([1, 5, 3, 2, 5])
    q = LONG.plain(LONG.masked(s, mixed))
    for row, length in enumerate(mixed.tolist()):
        alone = Chains(length, LONG.states).plain(up_to(length, s[row : row + 1]))
        torch.testing.assert_close(q.entropy()[row], alone.entropy()[0])


@pytest.mark.parametrize("wrong", [0, 6])
def test_lengths_out_of_range_are_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=r"^lengths of Chains\(5, 3\) are from 1 to 5$"):
        LONG.masked(some_scores(LONG), torch.tensor([1, 2, wrong, 3, 4]))


@pytest.mark.parametrize("arguments", [(0, 3), (3, 0), (-1, 2)])
def test_numbers_that_make_no_sense_are_refused(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="give one place and one state at least"):
        Chains(*arguments)


def test_more_than_can_be_listed_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^the 1099511627776 assignments .* too many"):
        Chains(40, 2).every(torch.zeros(1))


def test_support_sizes_are_counted_however_many_there_are() -> None:
    large = Chains(1000, 3)
    assert large.plain(torch.zeros(2, *large.scores_shape)).support_sizes.tolist() == [math.inf] * 2
    small = Chains(2, 3)
    assert small.plain(torch.zeros(1, *small.scores_shape)).support_sizes.tolist() == [9]
