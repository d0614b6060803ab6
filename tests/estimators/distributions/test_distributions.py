"""Distributions against formulas written out over all assignments."""

import math

import pytest
import torch
from torch import Tensor

from estimators.distributions.base import (
    BernoulliBits,
    Categorical,
    Distribution,
    SparseBits,
    SparsemaxCategorical,
)
from estimators.mappings import all_bit_vectors, sparsemap_bits, topk_sparsemax
from estimators.sampler import Sampler

ROWS, BITS, CATEGORIES = 4, 3, 5


def scores(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, size, generator=generator, dtype=torch.float64)


def sparse_bits(eta: Tensor) -> SparseBits:
    solution = sparsemap_bits(eta, budget=2)
    return SparseBits(eta, solution.vertices, solution.probabilities)


def top_bits(eta: Tensor) -> SparseBits:
    solution = topk_sparsemax(eta, 8)
    return SparseBits(eta, solution.vertices, solution.probabilities)


CASES = {
    "softmax": (Categorical, CATEGORIES),
    "sparsemax": (SparsemaxCategorical, CATEGORIES),
    "bernoulli": (BernoulliBits, BITS),
    "sparsemap": (sparse_bits, BITS),
    "topk": (top_bits, BITS),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def q(request: pytest.FixtureRequest) -> Distribution:
    make, size = request.param
    made: Distribution = make(scores(size))
    return made


def every(q: Distribution) -> Tensor:
    """All assignments of each row."""
    if isinstance(q, Categorical):
        return torch.arange(CATEGORIES).expand(ROWS, -1)
    return all_bit_vectors(BITS, q.scores).expand(ROWS, -1, -1)


def test_probabilities_sum_to_one(q: Distribution) -> None:
    total = q.log_prob(every(q)).exp().sum(dim=1)
    torch.testing.assert_close(total, torch.ones(ROWS, dtype=torch.float64))


def test_support_lists_what_has_probability(q: Distribution) -> None:
    p = q.log_prob(every(q)).exp()
    assert len(q.support.row) == int((p > 0).sum())
    assert torch.equal(q.support_sizes, q.support.row.bincount().to(q.support_sizes))
    for row in range(ROWS):
        here = q.support.row == row
        listed = q.support.z[here][None]
        torch.testing.assert_close(
            q.log_prob(listed.expand(ROWS, *listed.shape[1:]))[row].exp(),
            q.support.probability[here],
        )


def test_entropy_is_that_of_the_probabilities(q: Distribution) -> None:
    p = q.log_prob(every(q)).exp()
    torch.testing.assert_close(q.entropy(), -torch.special.xlogy(p, p).sum(dim=1))


def test_mode_is_the_likeliest(q: Distribution) -> None:
    p = q.log_prob(every(q))
    torch.testing.assert_close(q.log_prob(q.mode()[:, None]).squeeze(1), p.max(dim=1).values)


def test_samples_have_the_probabilities(q: Distribution) -> None:
    draws = 20_000
    z = q.sample(Sampler(torch.Generator().manual_seed(0)), draws)
    p = q.log_prob(every(q)).exp()
    same = (
        (z[:, :, None] == every(q)[:, None])
        if z.dim() == 2
        else ((z[:, :, None, :] == every(q)[:, None]).all(dim=3))
    )
    frequency = same.double().mean(dim=1)
    assert ((frequency - p).abs() <= 5 * (p * (1 - p) / draws).sqrt() + 1e-12).all()


def test_softmax_and_bits_are_what_they_are_called() -> None:
    s = scores(CATEGORIES)
    torch.testing.assert_close(
        Categorical(s).probabilities, s.exp() / s.exp().sum(dim=1, keepdim=True)
    )
    eta = scores(BITS)
    p = 1 / (1 + (-eta).exp())
    z = all_bit_vectors(BITS, eta)
    by_hand = torch.stack([(z * row + (1 - z) * (1 - row)).prod(dim=1) for row in p])
    torch.testing.assert_close(BernoulliBits(eta).log_prob(z.expand(ROWS, -1, -1)).exp(), by_hand)


@pytest.mark.parametrize("name", ["bernoulli", "sparsemap", "topk"])
def test_marginals_are_expected_bits(name: str) -> None:
    make, size = CASES[name]
    q = make(scores(size))
    p = q.log_prob(every(q)).exp()
    torch.testing.assert_close(q.marginals(), torch.einsum("bm,bmd->bd", p, every(q)))


@pytest.mark.parametrize("name", CASES)
def test_entropy_passes_gradcheck(name: str) -> None:
    make, size = CASES[name]
    assert torch.autograd.gradcheck(lambda s: make(s).entropy(), scores(size).requires_grad_())


def test_entropy_survives_certainty() -> None:
    far = torch.tensor([[200.0, -200, 0], [1e4, 0, 0]], requires_grad=True)
    for make in (Categorical, SparsemaxCategorical, BernoulliBits):
        entropy = make(far).entropy()
        (gradient,) = torch.autograd.grad(entropy.sum(), far)
        assert torch.isfinite(entropy).all()
        assert torch.isfinite(gradient).all()


def test_label_losses_belong_to_their_mappings() -> None:
    """The gradient of a Fenchel-Young loss is the mapping minus the label (Blondel et al. 2020)."""
    target = torch.tensor([0, 1, 4, 2])
    for make in (Categorical, SparsemaxCategorical):
        s = scores(CATEGORIES).requires_grad_()
        q = make(s)
        (gradient,) = torch.autograd.grad(q.fenchel_young_loss(target).sum(), s)
        label = torch.nn.functional.one_hot(target, CATEGORIES)
        torch.testing.assert_close(gradient, (q.probabilities - label).detach())


def test_too_many_bits_to_list() -> None:
    q = BernoulliBits(torch.zeros(1, 17))
    assert q.support_sizes == 2**17
    with pytest.raises(ValueError, match="too many"):
        _ = q.support


def test_uniform_bits_have_full_entropy() -> None:
    assert float(BernoulliBits(torch.zeros(1, 40)).entropy()) == pytest.approx(40 * math.log(2))
