"""Sparsemax of Gaussian scores, on the faces of the simplex."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from estimators.distributions.gaussian_sparsemax import GaussianSparsemax
from estimators.distributions.mixed_bits import ClippedGaussianBits
from estimators.sampler import Sampler
from estimators.spaces import Bits, Categoricals
from tests.estimators.contract import central_differences

THREE = Categoricals(1, 3)
DRAWS = 1_000_000
SCORES = torch.tensor([[[0.3, -0.5, 0.1]], [[1.5, 0.2, -1.0]]], dtype=torch.float64)


def q_of(scores: Tensor, scale: float = 0.8, samples: int = 2) -> GaussianSparsemax:
    return GaussianSparsemax(Categoricals(*scores.shape[1:]), scores, scale, samples)


def generator() -> Sampler:
    return Sampler(torch.Generator().manual_seed(0))


def simplex(nodes: int = 60) -> tuple[Tensor, Tensor, list[slice]]:
    """Points of the faces of three categories (M, 1, 3), their weights, and where each face is."""
    x, w = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(nodes))
    x, w = (x + 1) / 2, w / 2
    points, weights = [torch.eye(3, dtype=torch.float64)], [torch.ones(3, dtype=torch.float64)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        edge = torch.zeros(nodes, 3, dtype=torch.float64)
        edge[:, first], edge[:, second] = x, 1 - x
        points.append(edge)
        weights.append(w)
    one, two = (part.flatten() for part in torch.meshgrid(x, x, indexing="ij"))
    points.append(torch.stack([one, (1 - one) * two, (1 - one) * (1 - two)], dim=1))
    weights.append(torch.outer(w, w).flatten() * (1 - one))
    ends = [3, 3 + nodes, 3 + 2 * nodes, 3 + 3 * nodes, 3 + 3 * nodes + nodes**2]
    faces = [slice(i, i + 1) for i in range(3)]
    faces += [slice(start, end) for start, end in itertools.pairwise(ends)]
    return torch.cat(points)[:, None], torch.cat(weights), faces


def masses(q: GaussianSparsemax) -> Tensor:
    """Density times measure at the points of `simplex`, (B, M)."""
    z, weight, _ = simplex()
    return q.log_prob(z.expand(len(q.scores), -1, -1, -1)).exp() * weight


@pytest.mark.parametrize("scale", [0.3, 0.8, 2.0])
def test_the_faces_sum_to_one(scale: float) -> None:
    torch.testing.assert_close(
        masses(q_of(SCORES, scale)).sum(dim=1), torch.ones(2).double(), rtol=0, atol=1e-9
    )


def check_faces(q: GaussianSparsemax) -> None:
    """How often a sample lies on each face, and is nearest to each vertex."""
    z = q.sample(generator(), DRAWS // 2)
    mass, (_, _, faces) = masses(q), simplex()
    on = (z > 0).squeeze(2)
    patterns = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    wanted, found = [], []
    for pattern, face in zip(patterns, faces, strict=True):
        there = torch.tensor([category in pattern for category in range(3)])
        found.append((on == there).all(dim=2).double().mean(dim=1))
        wanted.append(mass[:, face].sum(dim=1))
    for category in range(3):
        found.append((z.argmax(dim=3) == category).double().mean(dim=(1, 2)))
        wanted.append(q.rounded().probabilities[:, 0, category])
    p, drawn = torch.stack(wanted), torch.stack(found)
    assert ((drawn - p).abs() <= 4.5 * (p * (1 - p) / (DRAWS // 2)).sqrt()).all()
    torch.testing.assert_close(q.on_vertex(), p[:3].sum(dim=0))
    torch.testing.assert_close(q.rounded().probabilities.sum(dim=2), torch.ones(2, 1).double())


def test_samples_are_on_each_face_as_often_as_the_density_says() -> None:
    check_faces(q_of(SCORES))


class TwoNoises(GaussianSparsemax):
    """Samples whose noise is another one than that of the density."""

    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        narrow = GaussianSparsemax(self.space, self.scores, self.scale / math.sqrt(2), 2)
        return narrow.sample(sampler, samples)


def test_another_noise_is_found() -> None:
    with pytest.raises(AssertionError):
        check_faces(TwoNoises(THREE, SCORES, 0.8, 2))


def exact_entropy(scores: Tensor) -> Tensor:
    """By quadrature, (B,)."""
    mass = masses(q_of(scores))
    return (mass * (simplex()[1].log() - mass.log())).sum(dim=1)


def check_entropy(kind: type[GaussianSparsemax]) -> None:
    """Value and slope of the estimate are those of quadrature in the mean, z-tested."""
    rows = 100_000
    for scores in SCORES:
        at = scores.expand(rows, 1, 3).clone().requires_grad_()
        q = kind(THREE, at, 0.8, 2)
        estimate = q.entropy_from(q.sample(generator(), 2))
        (slope,) = torch.autograd.grad(estimate.sum(), at)
        wanted = exact_entropy(scores[None])
        moved = central_differences(lambda s: exact_entropy(s[None])[0], scores, 1e-4)
        for drawn, target in (
            (estimate.detach()[:, None], wanted),
            (slope.flatten(1), moved.flatten()),
        ):
            error = (drawn.mean(dim=0) - target).abs()
            assert (error <= 4.5 * drawn.std(dim=0) / rows**0.5).all()


def test_the_entropy_is_estimated_without_bias() -> None:
    check_entropy(GaussianSparsemax)


class ThroughTheSamples(GaussianSparsemax):
    """The slope goes through the samples, as if log q did not jump from face to face."""

    def entropy_from(self, z: Tensor) -> Tensor:
        return -self.log_prob(z).mean(dim=1)


class OwnBaseline(GaussianSparsemax):
    """The mean that is taken off has the sample itself in it."""

    def entropy_from(self, z: Tensor) -> Tensor:
        log_q = self.log_prob(z.detach())
        value = log_q.detach()
        away = value - value.mean(dim=1, keepdim=True)
        surrogate = (away * log_q).mean(dim=1)
        return surrogate.detach() - surrogate - value.mean(dim=1)


@pytest.mark.parametrize("mutant", [ThroughTheSamples, OwnBaseline])
def test_a_biased_entropy_is_found(mutant: type[GaussianSparsemax]) -> None:
    with pytest.raises(AssertionError):
        check_entropy(mutant)


def test_its_own_entropy_is_the_same_at_every_call() -> None:
    q = q_of(SCORES.requires_grad_(), samples=20_000)
    torch.testing.assert_close(q.entropy(), exact_entropy(SCORES), rtol=0, atol=0.03)
    assert torch.equal(q.entropy(), q.entropy())


def test_two_categories_are_a_bit() -> None:
    scores = torch.randn(5, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pair = q_of(scores, samples=100_000)
    bit = ClippedGaussianBits(Bits(1), scores[:, :, 0] - scores[:, :, 1], 0.8)
    z = torch.tensor([0.0, 0.3, 0.8, 1.0], dtype=torch.float64).expand(5, 4)
    both = torch.stack([z, 1 - z], dim=2)[:, :, None]
    torch.testing.assert_close(pair.log_prob(both), bit.log_prob(z[:, :, None]))
    torch.testing.assert_close(pair.on_vertex(), bit.on_vertex())
    torch.testing.assert_close(
        pair.rounded().probabilities[:, 0, 0], bit.rounded().probabilities[:, 0]
    )
    torch.testing.assert_close(pair.entropy(), bit.entropy(), rtol=0, atol=0.02)
    assert pair.log_volume == pytest.approx(bit.log_volume)
    vertices = pair.log_prob(torch.tensor([[[0], [1]]]).expand(5, 2, 1))
    torch.testing.assert_close(vertices, bit.log_prob(z[:, [3, 0], None]))


def log_density(z: Tensor, scores: Tensor, scale: float) -> float:
    """Of z (C,), by an integral over the threshold t."""
    on, peak = z > 0, float((scores - z)[z > 0].mean())

    def log_integrand(t: float) -> float:
        inside = stats.norm.logpdf(z[on] + t, scores[on], scale).sum()
        return float(inside + stats.norm.logcdf(t, scores[~on], scale).sum())

    peak = max((peak + step * scale / 10 for step in range(-80, 81)), key=log_integrand)
    most = log_integrand(peak)
    total, _ = integrate.quad(
        lambda t: math.exp(log_integrand(t) - most),
        peak - 12 * scale, peak + 12 * scale, points=[peak], epsabs=1e-12, limit=200,
    )  # fmt: skip
    return math.log(int(on.sum()) * total) + most


@pytest.mark.parametrize(("categories", "error"), [(32, 1e-8), (256, 2e-7)])
def test_the_density_of_many_categories_is_exact(categories: int, error: float) -> None:
    maker = torch.Generator().manual_seed(2)
    scores = torch.randn(1, 1, categories, dtype=torch.float64, generator=maker)
    for scale in (0.5, 2.0):
        q = q_of(scores, scale)
        for z in q.sample(generator(), 4)[0, :, 0]:
            wanted = log_density(z, scores[0, 0], scale)
            assert float(q.log_prob(z[None, None, None])) == pytest.approx(wanted, abs=error)


def test_variables_are_apart() -> None:
    scores = torch.randn(4, 3, 5, dtype=torch.float64)
    q, each = q_of(scores), [q_of(scores[:, [v]]) for v in range(3)]
    z = q.sample(generator(), 6)
    apart = sum(one.log_prob(z[:, :, [v]]) for v, one in enumerate(each))
    torch.testing.assert_close(q.log_prob(z), apart)
    assert q.log_volume == pytest.approx(3 * each[0].log_volume)
    mean = torch.stack([one.on_vertex() for one in each]).mean(dim=0)
    torch.testing.assert_close(q.on_vertex(), mean)


def test_extreme_scores_give_numbers_that_are_right() -> None:
    """Single precision has those of double."""
    for size in (20.0, 50.0):
        scores = size * torch.tensor([[[1.0, -1, 0]], [[-1, -0.98, -1]], [[1, 0.99, 1]]])
        found = []
        for dtype in (torch.float64, torch.float32):
            at = scores.to(dtype).requires_grad_()
            q = q_of(at)
            noise = torch.tensor([[0.3, -0.8, 1.0], [-1.0, 0.4, 0.2]], dtype=dtype)

            class Fixed(Sampler):
                def normal(self, like: Tensor, samples: int, noise: Tensor = noise) -> Tensor:
                    return noise[None, :, None].expand(len(like), -1, -1, -1)

            z = q.sample(Fixed(), 2)
            entropy = q.entropy_from(z)
            slopes = (
                torch.autograd.grad(entropy.sum(), at)[0],
                torch.autograd.grad(z.square().sum(), at)[0],
            )
            probabilities = q.rounded().probabilities
            values = [z, q.log_prob(z.detach()), entropy, *slopes, q.on_vertex(), probabilities]
            assert all(value.isfinite().all() for value in values)
            found.append([value.detach().double() for value in values])
        for right, rounded in zip(*found, strict=True):
            torch.testing.assert_close(rounded, right, rtol=1e-4, atol=1e-4)
