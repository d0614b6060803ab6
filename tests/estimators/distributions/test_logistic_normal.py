"""Softmax of Gaussian scores, within the simplex."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from estimators.distributions.logistic_normal import LogisticNormal
from estimators.distributions.mixed_bits import LogisticNormalBits
from estimators.sampler import Sampler
from estimators.spaces import Bits, Categoricals
from tests.estimators.contract import central_differences

SCALES = (0.3, 1.0, 2.5)
SCORES = torch.tensor([[[0.3, -0.5, 0.1]], [[3.5, 0.2, -1.0]]], dtype=torch.float64)


def q_of(scores: Tensor, scale: float) -> LogisticNormal:
    return LogisticNormal(Categoricals(*scores.shape[1:]), scores, scale)


def normal_grid(scores: Tensor, scale: float, nodes: int = 60) -> tuple[Tensor, Tensor]:
    """Perturbed scores of three categories, (B, 1, M, 3), and their weights: Gauss-Hermite."""
    x, w = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(nodes))
    noise, weight = (torch.cartesian_prod(part, part, part) for part in (x, w / w.sum()))
    return scores[:, :, None] + scale * noise, weight.prod(dim=1)


def entropy_of(scores: Tensor, scale: float) -> Tensor:
    """−E[log q], with the density in log-ratios written out."""
    level, weight = normal_grid(scores, scale)
    covariance = scale**2 * (torch.eye(2, dtype=torch.float64) + 1)
    of_ratios = (2 + 2 * math.log(2 * math.pi) + torch.linalg.slogdet(covariance)[1]) / 2
    return of_ratios + (level.log_softmax(dim=3).sum(dim=3) @ weight).sum(dim=1)


@pytest.mark.parametrize("scale", SCALES)
def test_the_entropy_is_exact(scale: float) -> None:
    at = SCORES.clone().requires_grad_()
    entropy = q_of(at, scale).entropy()
    torch.testing.assert_close(entropy, entropy_of(SCORES, scale), rtol=0, atol=1e-8)
    (slope,) = torch.autograd.grad(entropy.sum(), at)
    wanted = central_differences(lambda s: entropy_of(s, scale).sum(), SCORES, 1e-4)
    torch.testing.assert_close(slope, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_the_density_is_of_its_samples(scale: float) -> None:
    """Its integral is one, and its mean log is minus the entropy."""
    q = q_of(SCORES, scale)
    level, weight = normal_grid(SCORES, scale)
    log_q = q.log_prob(level.softmax(dim=3).transpose(1, 2))
    torch.testing.assert_close(-(log_q @ weight), q.entropy(), rtol=0, atol=1e-7)
    step = 0.1
    one, two = torch.meshgrid(*[step * torch.arange(-250, 250).double()] * 2, indexing="ij")
    z = torch.stack([one, two, torch.zeros_like(one)], dim=2).view(1, -1, 1, 3).softmax(dim=3)
    density = (q_of(SCORES[:1], max(scale, 0.5)).log_prob(z) + z.log().sum(dim=(2, 3))).exp()
    assert float(density.sum() * step**2) == pytest.approx(1, abs=1e-9)


def test_samples_are_nearest_to_each_vertex_as_often_as_it_says() -> None:
    q, draws = q_of(SCORES, 1.3), 500_000
    z = q.sample(Sampler(torch.Generator().manual_seed(0)), draws)
    p = q.rounded().probabilities[:, 0]
    found = torch.stack([(z.argmax(dim=3) == c).double().mean(dim=(1, 2)) for c in range(3)], dim=1)
    assert ((found - p).abs() <= 4.5 * (p * (1 - p) / draws).sqrt()).all()
    assert (q.on_vertex() == 0).all()


@pytest.mark.parametrize("scale", SCALES)
def test_two_categories_are_a_bit(scale: float) -> None:
    maker = torch.Generator().manual_seed(1)
    scores = 3 * torch.randn(5, 1, 2, dtype=torch.float64, generator=maker)
    pair, bit = (
        q_of(scores, scale),
        LogisticNormalBits(Bits(1), scores[:, :, 0] - scores[:, :, 1], scale),
    )
    z = torch.tensor([1e-3, 0.3, 0.8], dtype=torch.float64).expand(5, 3)
    both = torch.stack([z, 1 - z], dim=2)[:, :, None]
    torch.testing.assert_close(pair.log_prob(both), bit.log_prob(z[:, :, None]))
    torch.testing.assert_close(pair.entropy(), bit.entropy(), rtol=0, atol=1e-8)
    torch.testing.assert_close(
        pair.rounded().probabilities[:, 0, 0], bit.rounded().probabilities[:, 0]
    )
    assert pair.log_volume == bit.log_volume == 0


@pytest.mark.parametrize("categories", [32, 256])
def test_many_categories_have_the_entropy_of_their_samples(categories: int) -> None:
    maker = torch.Generator().manual_seed(2)
    scores = torch.randn(1, 1, categories, dtype=torch.float64, generator=maker)
    q = q_of(scores, 1.0)
    log_q = q.log_prob(q.sample(Sampler(maker), 20_000))
    noise = float(log_q.std()) / 20_000**0.5
    assert float(q.entropy()) == pytest.approx(-float(log_q.mean()), abs=4.5 * noise)
    assert float(q.entropy()) < q.log_volume


@pytest.mark.parametrize("size", [20.0, 50.0])
def test_extreme_scores_give_numbers_that_are_right(size: float) -> None:
    """Single precision has those of double."""
    scores = size * torch.tensor([[[1.0, -1, 0]], [[-1, -0.98, -1]], [[1, 0.99, 1]]])
    found = []
    for dtype in (torch.float64, torch.float32):
        at = scores.to(dtype).requires_grad_()
        q = q_of(at, 0.8)
        entropy = q.entropy()
        values = [entropy, *torch.autograd.grad(entropy.sum(), at), q.rounded().probabilities]
        values.append(q.log_prob(q.sample(Sampler(torch.Generator().manual_seed(0)), 3)) * 0)
        assert all(value.isfinite().all() for value in values)
        found.append([value.detach().double() for value in values])
    for right, rounded in zip(*found, strict=True):
        torch.testing.assert_close(rounded, right, rtol=1e-5, atol=2e-5 * size)


class AtTheMean(LogisticNormal):
    """log Σ exp of the scores themselves, in place of its mean."""

    def _mean_log_sum(self) -> Tensor:
        return self.scores.logsumexp(dim=2)


class OneTooMany(LogisticNormal):
    """The noise of all scores, of which one number does not show."""

    def _log_volume_of_noise(self) -> float:
        return -self.space.categories / 2 * math.log(2 * math.pi * self.scale**2)


@pytest.mark.parametrize("mutant", [AtTheMean, OneTooMany])
def test_another_entropy_is_found(
    mutant: type[LogisticNormal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "LogisticNormal", mutant)
    with pytest.raises(AssertionError):
        test_the_entropy_is_exact(1.0)
