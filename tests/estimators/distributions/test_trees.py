"""Dependency trees, against formulas written out over all of them, and against determinants."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from estimators.mappings.trees import best_trees, log_partition, tree_marginals
from estimators.sampled.score_function import ScoreFunction
from estimators.sampler import Sampler
from estimators.spaces import Trees
from estimators.spaces.forbidden import FORBIDDEN
from estimators.spaces.trees import DependencyTrees
from tests.estimators.contract import Problem, check_expectation, network
from tests.estimators.every_outcome import EveryOutcome

ROWS = 4
SPACES = [Trees(1), Trees(2), Trees(3), Trees(4), Trees(5)]
FINITE = {"rtol": 1e-10, "atol": 1e-12}


def some_scores(space: Trees, scale: float = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    s = scale * torch.randn(ROWS, *space.scores_shape, generator=generator, dtype=torch.float64)
    return s.to(dtype).requires_grad_()


def is_tree(heads: tuple[int, ...]) -> bool:
    """Every word comes to the one root by its heads."""
    root = [word for word, head in enumerate(heads) if word == head]
    ends = set()
    for word in range(len(heads)):
        for _ in heads:
            word = heads[word]
        ends.add(word)
    return len(root) == 1 and ends == set(root)


def written_out(space: Trees) -> Tensor:
    """Heads (M, n)."""
    words = range(space.words)
    return torch.tensor([*filter(is_tree, itertools.product(words, repeat=space.words))])


def points(space: Trees) -> Tensor:
    """(M, n, n), in float64."""
    return torch.nn.functional.one_hot(written_out(space), space.words).double()


def in_full(space: Trees, s: Tensor) -> dict[str, Tensor]:
    """What a q has to give, by sums over every tree."""
    log_p = torch.einsum("bij,mij->bm", s.double(), points(space)).log_softmax(dim=1)
    return {
        "log_prob": log_p,
        "joint": log_p.exp(),
        "marginals": torch.einsum("bm,mij->bij", log_p.exp(), points(space)),
        "entropy": -(log_p.exp() * log_p).sum(dim=1),
    }


def found(space: Trees, s: Tensor, kind: type[DependencyTrees]) -> dict[str, Tensor]:
    q, every = kind(space, s), written_out(space)
    return {
        "log_prob": q.log_prob(every.expand(len(s), *every.shape)),
        "joint": q.joint(),
        "marginals": q.marginals(),
        "entropy": q.entropy(),
    }


def check_values(space: Trees, kind: type[DependencyTrees] = DependencyTrees) -> None:
    s = some_scores(space)
    values, wanted = found(space, s, kind), in_full(space, s)
    for name, value in values.items():
        torch.testing.assert_close(value, wanted[name], **FINITE)


def gradients(space: Trees, values: dict[str, Tensor], s: Tensor) -> dict[str, Tensor]:
    """Of a random combination of each."""
    generator = torch.Generator().manual_seed(1)
    of_each = {}
    for name, value in values.items():
        weight = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        total = (weight * value).sum()
        (of_each[name],) = torch.autograd.grad(total, s, retain_graph=True)
    return of_each


def check_gradients(space: Trees, kind: type[DependencyTrees] = DependencyTrees) -> None:
    s = some_scores(space)
    one = gradients(space, found(space, s, kind), s)
    other = gradients(space, in_full(space, s), s)
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, other[name], **FINITE)


def check_samples(
    space: Trees, kind: type[DependencyTrees] = DependencyTrees, samples: int = 1
) -> None:
    """The law of independent samples, from every outcome of what is drawn for them."""
    scores = some_scores(space).detach()[:1]
    recording = EveryOutcome.recording()
    kind(space, scores).sample(recording, samples)
    rows = math.prod(recording.draws)
    dealer = EveryOutcome(recording.draws)
    z = kind(space, scores.expand(rows, -1, -1)).sample(dealer, samples)
    same = (z[:, :, None] == written_out(space)).all(dim=3).double()
    law = dealer.weight.expand(rows)[:, None]
    joint = in_full(space, scores)["joint"][0]
    wanted = torch.ones(1, dtype=torch.float64)
    for sample in range(samples):
        law = (law[:, :, None] * same[:, sample, None]).flatten(1)
        wanted = (wanted[:, None] * joint).flatten()
    torch.testing.assert_close(law.sum(dim=0), wanted, **FINITE)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_values_are_those_of_sums_over_every_tree(space: Trees) -> None:
    check_values(space)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_gradients_are_those_of_sums_over_every_tree(space: Trees) -> None:
    check_gradients(space)


@pytest.mark.parametrize("space", SPACES[:4], ids=repr)
def test_every_tree_is_drawn_as_often_as_q_has_it(space: Trees) -> None:
    check_samples(space)


def test_samples_are_independent() -> None:
    check_samples(Trees(3), samples=2)


def test_second_derivatives_of_the_log_partition_are_covariances() -> None:
    s = some_scores(Trees(3))
    assert torch.autograd.gradgradcheck(log_partition, s)
    assert torch.autograd.gradcheck(tree_marginals, s)


class LastHeadAnew(DependencyTrees):
    """The last word's head is drawn again, whatever arcs weigh, and taken if that is a tree."""

    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        right = super().sample(sampler, samples)
        changed = right.clone()
        weights = torch.ones_like(self.scores[:, -1, :-1], requires_grad=False)
        changed[:, :, -1] = sampler.categorical(weights, samples)
        fine = [[is_tree(tuple(z)) for z in of_row] for of_row in changed.tolist()]
        return torch.where(torch.tensor(fine)[:, :, None], changed, right)


class HeadsByThemselves(DependencyTrees):
    """The marginals of independent heads."""

    def marginals(self) -> Tensor:
        return self.scores.softmax(dim=2)


class SeveralRoots(DependencyTrees):
    """The entropy has the log-partition of trees with any number of roots."""

    def entropy(self) -> Tensor:
        mean = (self.scores * self.marginals()).sum(dim=(1, 2))
        return with_any_roots(self.scores) - mean


class DerivativeOfIndependentHeads(DependencyTrees):
    """The covariance of the marginals is that within each word."""

    def marginals(self) -> Tensor:
        mu = super().marginals().detach()
        moved = self.scores - self.scores.detach()
        return mu + mu * (moved - (mu * moved).sum(dim=2, keepdim=True))


class FixedMarginals(DependencyTrees):
    """They have no derivative."""

    def marginals(self) -> Tensor:
        return super().marginals().detach() + 0 * self.scores


@pytest.mark.parametrize(
    ("check", "mutant"),
    [
        (check_samples, LastHeadAnew),
        (check_values, HeadsByThemselves),
        (check_values, SeveralRoots),
        (check_gradients, DerivativeOfIndependentHeads),
        (check_gradients, FixedMarginals),
    ],
)
def test_planted_mistakes_are_caught(
    check: Callable[..., None], mutant: type[DependencyTrees]
) -> None:
    check(Trees(3))
    with pytest.raises(AssertionError):
        check(Trees(3), mutant)


class DrawnOtherwise(Trees):
    """Samples are not those of q."""

    def plain(self, scores: Tensor) -> LastHeadAnew:
        return LastHeadAnew(self, scores)


def test_the_contract_finds_samples_that_are_not_those_of_q() -> None:
    right, mutant = Trees(3), DrawnOtherwise(3)
    check_expectation(ScoreFunction.make(right), Problem.random(right), network)
    with pytest.raises(AssertionError):
        check_expectation(ScoreFunction.make(mutant), Problem.random(mutant), network)


def laplacian(s: Tensor) -> Tensor:
    """L[m, m] = Σ_h w[m, h] and L[m, h] = −w[m, h]: of arcs alone."""
    weights = s.exp() * (1 - torch.eye(s.shape[1], dtype=s.dtype))
    return weights.sum(dim=2).diag_embed() - weights


def with_any_roots(s: Tensor) -> Tensor:
    """The log-partition where roots may be several."""
    return (laplacian(s) + s.diagonal(dim1=1, dim2=2).exp().diag_embed()).logdet()


def by_determinant(s: Tensor) -> Tensor:
    """log Z with one root: the first column of the Laplacian gives way to the roots' weights (Koo
    et al. 2007, section 3.2)."""
    first = torch.arange(s.shape[1]) == 0
    roots = s.diagonal(dim1=1, dim2=2).exp()
    return torch.where(first, roots[:, :, None], laplacian(s)).slogdet().logabsdet


@pytest.mark.parametrize("words", [2, 7, 20])
def test_ordinary_scores_have_the_determinants_of_the_matrix_tree_theorem(words: int) -> None:
    s = some_scores(Trees(words), scale=1)
    one, other = log_partition(s), by_determinant(s)
    torch.testing.assert_close(one, other)
    weight = torch.randn(s.shape, generator=torch.Generator().manual_seed(2), dtype=s.dtype)
    for total in (one, other):
        (marginals,) = torch.autograd.grad(total.sum(), s, create_graph=True)
        (covariances,) = torch.autograd.grad((weight * marginals).sum(), s)
        if total is one:
            first, second = marginals, covariances
    torch.testing.assert_close(first, marginals, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(second, covariances, rtol=1e-8, atol=1e-11)


def in_logs(s: Tensor) -> Tensor:
    """log Z by the same reduction in whole-tensor operations, for autograd."""
    total = s.new_zeros(len(s))
    while (k := s.shape[1] - 1) > 0:
        top = s[:, k, :k].logsumexp(dim=1)
        onwards = torch.where(torch.eye(k) > 0, s[:, k, k, None, None], s[:, k, None, :k])
        s = torch.logaddexp(s[:, :k, :k], s[:, :k, k, None] - top[:, None, None] + onwards)
        total = total + top
    return total + s[:, 0, 0]


@pytest.mark.parametrize("scale", [1, 100, 1e4])
def test_long_sentences_have_the_sums_of_the_same_reduction_in_logs(scale: float) -> None:
    s = some_scores(Trees(20), scale)
    q = Trees(20).plain(s)
    torch.testing.assert_close(log_partition(s), in_logs(s), rtol=1e-13, atol=0)
    (marginals,) = torch.autograd.grad(in_logs(s).sum(), s)
    torch.testing.assert_close(q.marginals(), marginals, rtol=0, atol=1e-16 * (1e4 + 1e3 * scale))
    torch.testing.assert_close(q.marginals().sum(dim=2), torch.ones(ROWS, 20).double())
    roots = q.marginals().diagonal(dim1=1, dim2=2).sum(dim=1)
    torch.testing.assert_close(roots, torch.ones_like(roots), rtol=0, atol=1e-11)
    assert (q.marginals() >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [30, 1e4])
@pytest.mark.parametrize("space", SPACES[:4], ids=repr)
def test_large_scores_give_numbers_that_are_right(
    space: Trees, scale: float, dtype: torch.dtype
) -> None:
    """Values and gradients, also next to ties and to small differences."""
    generator = torch.Generator().manual_seed(0)
    moved = torch.randint(-1, 2, (100, *space.scores_shape), generator=generator)
    s = scale * moved.to(dtype)
    s[50:] += torch.randint(-4, 5, s[50:].shape, generator=generator) / 4
    s.requires_grad_()
    values, wanted = found(space, s, DependencyTrees), in_full(space, s)
    eps = max(torch.finfo(dtype).eps, scale * torch.finfo(torch.float64).eps)  # of a sum of scores
    for name, value in values.items():
        torch.testing.assert_close(value.double(), wanted[name], rtol=10 * eps, atol=40 * eps)
        one, other = (
            torch.autograd.grad(of[name].square().sum(), s, retain_graph=True)[0]
            for of in (values, wanted)
        )
        largest = max(1.0, float(wanted[name].detach().abs().max()))
        close = {"rtol": 1e2 * eps, "atol": 1e2 * eps}
        torch.testing.assert_close(one / largest, other / largest, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_of_large_scores_are_the_best_tree(dtype: torch.dtype) -> None:
    space = Trees(12)
    s = some_scores(space, 1e4, dtype).detach()
    z = space.plain(s).sample(Sampler(torch.Generator().manual_seed(0)), 5)
    assert all(is_tree(tuple(heads)) for heads in z.flatten(0, 1).tolist())
    assert torch.equal(z, space.best(s)[:, None].expand_as(z))


@pytest.mark.parametrize("words", [1, 2, 3, 10, 40])
def test_equal_scores_make_all_trees_alike(words: int) -> None:
    """Each word is as often the root, and any two as often an arc."""
    space = Trees(words)
    q = space.plain(torch.full((1, words, words), 7.0, dtype=torch.float64))
    torch.testing.assert_close(q.marginals(), torch.full_like(q.scores, 1 / words))
    log_count = q.scores.new_tensor([space.log_assignments])
    torch.testing.assert_close(q.entropy(), log_count)
    torch.testing.assert_close(q.log_prob(q.mode()[:, None])[:, 0], -log_count)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_the_best_tree_is_the_best_of_all(space: Trees) -> None:
    s, every = some_scores(space), written_out(space)
    assert torch.equal(space.every(s), every)
    total = torch.einsum("bij,mij->bm", s, points(space))
    assert torch.equal(space.best(s), every[total.argmax(dim=1)])
    assert torch.equal(space.plain(s).mode(), space.best(s))
    ties = torch.randint(-1, 2, (300, *space.scores_shape)).double()
    best = torch.einsum("bij,bij->b", ties, space.point(space.best(ties), ties.dtype))
    wanted = torch.einsum("bij,mij->bm", ties, points(space)).amax(dim=1)
    assert torch.equal(best, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1, 1e4])
def test_the_best_tree_of_a_long_sentence_is_that_of_a_library(
    scale: float, dtype: torch.dtype
) -> None:
    """Of networkx, which knows no single root: it is told which word is."""
    networkx = pytest.importorskip("networkx")
    words = 7
    s = some_scores(Trees(words), scale, dtype).detach()[:2]
    for heads, row in zip(best_trees(s).tolist(), s.double().tolist(), strict=True):
        totals = []
        for root in range(words):
            graph = networkx.DiGraph(
                (head, word, {"weight": row[word][head]})
                for word in range(words)
                for head in range(words)
                if word not in (head, root)
            )
            tree = networkx.maximum_spanning_arborescence(graph)
            totals.append(tree.size("weight") + row[root][root])
        assert is_tree(tuple(heads))
        assert sum(row[word][head] for word, head in enumerate(heads)) == pytest.approx(max(totals))


LENGTHS = torch.tensor([5, 1, 3, 4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [2, 1e4])
def test_a_shorter_sentence_in_a_longer_one_is_what_it_was(
    scale: float, dtype: torch.dtype
) -> None:
    long = Trees(5)
    s = some_scores(long, scale, dtype)
    q = long.plain(long.masked(s, LENGTHS))
    weight = torch.randn(s.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    noise = torch.randn(s.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    eps = torch.finfo(dtype).eps
    digits = {"rtol": 20 * eps, "atol": 20 * eps * scale}
    best = long.best(long.masked(s, LENGTHS) + noise)
    z = q.sample(Sampler(torch.Generator().manual_seed(0)), 20)
    for row, length in enumerate(LENGTHS.tolist()):
        short, part = Trees(length), s[row : row + 1, :length, :length]
        alone = short.plain(part)
        torch.testing.assert_close(q.entropy()[row], alone.entropy()[0], **digits)
        torch.testing.assert_close(
            q.marginals()[row, :length, :length], alone.marginals()[0], **digits
        )
        forced = torch.arange(length, 5)
        assert (q.marginals()[row, forced, forced - 1] == 1).all()
        assert float(q.marginals()[row].detach().sum()) == pytest.approx(5)
        torch.testing.assert_close(
            q.log_prob(z)[row], alone.log_prob(z[row : row + 1, :, :length])[0], **digits
        )
        assert (z[row, :, length:] == forced - 1).all()
        assert all(is_tree(tuple(heads)) for heads in z[row, :, :length].tolist())
        assert torch.equal(best[row, :length], short.best(part + noise[row, :length, :length])[0])
        for of, own in (
            (q.entropy()[row], alone.entropy()[0]),
            (
                (weight * q.marginals())[row].sum(),
                (weight[row, :length, :length] * alone.marginals()[0]).sum(),
            ),
        ):
            (one,) = torch.autograd.grad(of, s, retain_graph=True)
            (other,) = torch.autograd.grad(own, s, retain_graph=True)
            torch.testing.assert_close(one, other, rtol=1e3 * eps, atol=1e2 * eps * scale)
            assert (one[row, length:] == 0).all()
            assert (one[row, :, length:] == 0).all()


def test_forbidden_arcs_have_no_probability_and_no_part_in_the_hull() -> None:
    long, short = Trees(5), Trees(3)
    s = some_scores(long).detach()
    lengths = torch.full((ROWS,), 3)
    masked = long.masked(s, lengths)
    part = s[:, :3, :3].contiguous()
    assert (long.plain(masked).marginals()[masked == FORBIDDEN] == 0).all()
    torch.testing.assert_close(long.centred(masked)[:, :3, :3], short.centred(part))
    assert (long.centred(masked)[:, 3:] == 0).all()
    nearest = long.nearest(masked)
    torch.testing.assert_close(nearest[:, :3, :3], short.nearest(part), rtol=0, atol=2e-6)
    assert (nearest[masked == FORBIDDEN] == 0).all()


def test_the_law_of_samples_of_a_shorter_sentence_is_its_own() -> None:
    space = Trees(4)
    s = space.masked(some_scores(space).detach()[:1], torch.tensor([3]))
    recording = EveryOutcome.recording()
    space.plain(s).sample(recording, 1)
    rows = math.prod(recording.draws)
    dealer = EveryOutcome(recording.draws)
    z = space.plain(s.expand(rows, -1, -1)).sample(dealer, 1)[:, 0]
    same = (z[:, None, :3] == written_out(Trees(3))).all(dim=2).double()
    wanted = in_full(Trees(3), s[:, :3, :3])["joint"][0]
    torch.testing.assert_close(dealer.weight @ same, wanted, **FINITE)
    assert (z[dealer.weight > 0, 3] == 2).all()


def test_between_assignments_log_prob_is_linear() -> None:
    space = Trees(3)
    s, every = some_scores(space), written_out(space)
    q = space.plain(s)
    weight = torch.rand(len(every), dtype=torch.float64).softmax(dim=0)
    mean = torch.einsum("m,mij->ij", weight, points(space)).expand(ROWS, 1, -1, -1)
    wanted = q.log_prob(every.expand(ROWS, *every.shape)) @ weight
    torch.testing.assert_close(q.log_prob(mean)[:, 0], wanted)


def test_no_gradient_goes_through_the_best_tree_or_the_nearest_point() -> None:
    s = some_scores(Trees(3))
    assert not Trees(3).nearest(s).requires_grad
    assert not Trees(3).best(s).requires_grad


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="one word at least"):
        Trees(0)
    with pytest.raises(ValueError, match=r"^the 117649 assignments of Trees\(7\) are too many"):
        Trees(7).every(torch.zeros(1))
    for lengths in ([0, 3], [3, 4]):
        with pytest.raises(ValueError, match="give 1 to 3"):
            Trees(3).masked(torch.zeros(2, 3, 3), torch.tensor(lengths))
