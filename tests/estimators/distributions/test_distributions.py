"""Distributions against formulas written out over all assignments."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from estimators.distributions.sparse import SparseDistribution
from estimators.mappings import sparsemap_bits, sparsemap_categoricals
from estimators.sampler import Sampler
from estimators.spaces import Bits, Categoricals, Chains, Factorised, Ranked, Space, Subsets, Trees
from estimators.spaces.distribution import FiniteDistribution

ROWS = 4
BITS, CATEGORICAL, SEVERAL = Bits(3), Categoricals(1, 5), Categoricals(2, 3)
SUBSETS, CHAIN, TREES = Subsets(2, 4, 2), Chains(3, 2), Trees(3)


def scores(space: Space) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, *space.scores_shape, generator=generator, dtype=torch.float64)


def plain(space: Space, s: Tensor) -> FiniteDistribution:
    return space.plain(s)


def sparsemax(space: Ranked, s: Tensor) -> SparseDistribution:
    return SparseDistribution(space, s, *space.topk_sparsemax(s, space.count))


def topk(space: Ranked, s: Tensor) -> SparseDistribution:
    return SparseDistribution(space, s, *space.topk_sparsemax(s, 4))


def sparsemap(space: Space, s: Tensor) -> SparseDistribution:
    if isinstance(space, Bits):
        solution = sparsemap_bits(s, budget=2)
        return SparseDistribution(space, s, solution.vertices, solution.probabilities)
    found = sparsemap_categoricals(s)
    return SparseDistribution(space, s, found.assignments, found.probabilities)


Make = Callable[[Any, Tensor], FiniteDistribution]
MAKERS: tuple[Make, ...] = (plain, sparsemax, topk, sparsemap)
CASES = {
    f"{make.__name__}-{space}": (make, space)
    for make in MAKERS
    for space in (BITS, CATEGORICAL, SEVERAL)
} | {
    f"{make.__name__}-{space}": (make, space)
    for make in (plain, sparsemax, topk)
    for space in (SUBSETS, CHAIN)
}
CASES[f"plain-{TREES}"] = (plain, TREES)


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> tuple[FiniteDistribution, Tensor]:
    """A distribution, and all assignments for each row."""
    make, space = request.param
    s = scores(space)
    every = space.every(s)
    return make(space, s), every.expand(ROWS, *every.shape)


def test_probabilities_sum_to_one(case: tuple[FiniteDistribution, Tensor]) -> None:
    q, every = case
    total = q.log_prob(every).exp().sum(dim=1)
    torch.testing.assert_close(total, torch.ones(ROWS, dtype=torch.float64))


def test_support_lists_what_has_probability(case: tuple[FiniteDistribution, Tensor]) -> None:
    q, every = case
    p = q.log_prob(every).exp()
    assert len(q.support.row) == int((p > 0).sum())
    assert torch.equal(q.support_sizes, q.support.row.bincount().to(q.support_sizes))
    for row in range(ROWS):
        here = q.support.row == row
        listed = q.support.z[here][None]
        torch.testing.assert_close(
            q.log_prob(listed.expand(ROWS, *listed.shape[1:]))[row].exp(),
            q.support.probability[here],
        )


def test_entropy_is_that_of_the_probabilities(case: tuple[FiniteDistribution, Tensor]) -> None:
    q, every = case
    p = q.log_prob(every).exp()
    torch.testing.assert_close(q.entropy(), -torch.special.xlogy(p, p).sum(dim=1))


def test_mode_is_the_likeliest(case: tuple[FiniteDistribution, Tensor]) -> None:
    q, every = case
    p = q.log_prob(every)
    torch.testing.assert_close(q.log_prob(q.mode()[:, None]).squeeze(1), p.max(dim=1).values)


def test_samples_have_the_probabilities(case: tuple[FiniteDistribution, Tensor]) -> None:
    q, every = case
    draws = 20_000
    z = q.sample(Sampler(torch.Generator().manual_seed(0)), draws)
    p = q.log_prob(every).exp()
    same = (z[:, :, None] == every[:, None]).flatten(3).all(dim=3)
    frequency = same.double().mean(dim=1)
    assert ((frequency - p).abs() <= 5 * (p * (1 - p) / draws).sqrt() + 1e-12).all()


def test_softmax_and_bits_are_what_they_are_called() -> None:
    s = scores(CATEGORICAL)
    p = CATEGORICAL.plain(s).log_prob(CATEGORICAL.every(s).expand(ROWS, -1, -1)).exp()
    torch.testing.assert_close(p, (s.exp() / s.exp().sum(dim=2, keepdim=True)).squeeze(1))
    eta = scores(BITS)
    p = 1 / (1 + (-eta).exp())
    z = BITS.every(eta)
    by_hand = torch.stack([(z * row + (1 - z) * (1 - row)).prod(dim=1) for row in p])
    torch.testing.assert_close(BITS.plain(eta).log_prob(z.expand(ROWS, -1, -1)).exp(), by_hand)


@pytest.mark.parametrize("space", [BITS, CATEGORICAL, SEVERAL, SUBSETS, CHAIN, TREES], ids=repr)
def test_the_plain_q_is_the_exponential_family_of_points(space: Space) -> None:
    s = scores(space)
    every = space.every(s)
    total = torch.einsum("mp,bp->bm", space.point(every, s.dtype).flatten(1), s.flatten(1))
    found = space.plain(s).log_prob(every.expand(ROWS, *every.shape))
    torch.testing.assert_close(found, total.log_softmax(dim=1))
    assert torch.equal(space.best(s), every[total.argmax(dim=1)])
    torch.testing.assert_close(space.soft(s), space.plain(s).marginals())


def test_marginals_are_expected_points(case: tuple[FiniteDistribution, Tensor]) -> None:
    q, every = case
    points = q.space.point(every, torch.float64)  # type: ignore[attr-defined]
    p = q.log_prob(every).exp()
    torch.testing.assert_close(q.marginals(), torch.einsum("bm,bm...->b...", p, points))


@pytest.mark.parametrize("name", CASES)
def test_entropy_passes_gradcheck(name: str) -> None:
    make, space = CASES[name]
    assert torch.autograd.gradcheck(
        lambda s: make(space, s).entropy(), scores(space).requires_grad_()
    )


FAR = (0.0, 0.5, 10.0, 17.0, 19.9, 20.1, 30.0, 40.0, 80.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_entropy_of_bits_and_its_slope_are_right_at_any_score(dtype: torch.dtype) -> None:
    """To some last digits of their own, however small they are."""
    s = torch.tensor([sign * score for score in FAR for sign in (1, -1)], dtype=dtype)
    s.requires_grad_()
    entropy = Bits(1).plain(s[:, None]).entropy()
    (slope,) = torch.autograd.grad(entropy.sum(), s)
    e = (-s.detach().double().abs()).exp()  # −|s| is the log-odds of the rarer value
    rare = e / (1 + e)
    by_hand = e.log1p() - e.log() * rare
    digits = 20 * torch.finfo(dtype).eps
    torch.testing.assert_close(entropy.double(), by_hand, rtol=digits, atol=0)
    by_hand = -s.detach().double() * rare / (1 + e)
    torch.testing.assert_close(slope.double(), by_hand, rtol=digits, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_entropy_of_a_bit_that_is_certain_is_zero(dtype: torch.dtype) -> None:
    s = torch.tensor([[100.0], [-100.0], [1e4], [-1e4]], dtype=dtype, requires_grad=True)
    entropy = Bits(1).plain(s).entropy()
    entropy.sum().backward()
    assert s.grad is not None
    for found in (entropy, s.grad):
        torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-41)


@pytest.mark.parametrize(
    ("make", "space"),
    [
        *itertools.product((plain, sparsemax), (Bits(3), Categoricals(1, 3), Categoricals(2, 3))),
        (plain, Subsets(1, 3, 2)),
        *((make, CHAIN) for make in (plain, sparsemax)),
        (plain, TREES),
    ],
)
def test_entropy_survives_certainty(make: Make, space: Space) -> None:
    far = torch.zeros(2, *space.scores_shape)
    far.view(2, -1)[:, 0] = torch.tensor([200.0, 1e4])
    far.view(2, -1)[0, 1] = -200
    far.requires_grad_()
    entropy = make(space, far).entropy()
    (gradient,) = torch.autograd.grad(entropy.sum(), far)
    assert torch.isfinite(entropy).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("make", "space"),
    [
        (plain, CATEGORICAL),
        (sparsemax, CATEGORICAL),
        *((make, SEVERAL) for make in (plain, sparsemap)),  # over joint assignments: SparseMAP's
    ],
)
def test_label_losses_belong_to_their_mappings(make: Make, space: Categoricals) -> None:
    """The gradient of a Fenchel-Young loss is the mapping minus the label (Blondel et al. 2020)."""
    target = torch.tensor([[0, 1], [1, 2], [2, 0], [2, 1]])[:, : space.variables]
    s = scores(space).requires_grad_()
    q = make(space, s)
    (gradient,) = torch.autograd.grad(q.label_loss(target).sum(), s)
    label = torch.nn.functional.one_hot(target, space.categories)
    torch.testing.assert_close(gradient, (q.marginals() - label).detach())


def test_too_many_assignments_to_list() -> None:
    for space in (Bits(17), Categoricals(17, 2)):
        q = space.plain(torch.zeros(1, *space.scores_shape))
        assert q.support_sizes == 2**17
        with pytest.raises(ValueError, match="too many"):
            _ = q.support


@pytest.mark.parametrize("share", [0.1, 1.0])
@pytest.mark.parametrize("space", [BITS, CATEGORICAL, SEVERAL], ids=repr)
def test_smoothed_marginals_are_those_and_leave_nothing_at_zero(
    space: Factorised, share: float
) -> None:
    marginals = sparsemax(space, 10 * scores(space)).marginals()
    found = space.plain(space.smoothed(marginals, share)).marginals()
    assert (found > 0).all()
    assert ((found - marginals).abs() <= share + 1e-9).all()
    if share == 1:
        uniform = torch.full_like(found, 0.5 if space is BITS else 1 / space.scores_shape[-1])
        torch.testing.assert_close(found, uniform)


def test_spaces_are_equal_where_they_are_written_alike() -> None:
    assert Bits(3) == Bits(3)
    assert Bits(3) != Bits(4)
    assert Bits(3) != Categoricals(3, 2)
    assert len({Categoricals(2, 3), Categoricals(2, 3), Categoricals(3, 2)}) == 2
    with pytest.raises(ValueError, match="one bit at least"):
        Bits(0)
    with pytest.raises(ValueError, match="one variable and category"):
        Categoricals(0, 3)


def test_oracle_calls_are_counted_by_row() -> None:
    space = Categoricals(2, 3)
    space.best(torch.zeros(5, 2, 3))
    space.best(torch.zeros(5, 4, 2, 3))
    assert space.oracle_calls == 25


def test_uniform_bits_have_full_entropy() -> None:
    assert float(Bits(40).plain(torch.zeros(1, 40)).entropy()) == pytest.approx(40 * math.log(2))
