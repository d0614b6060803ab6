"""Mixed Dirichlet variables against sums over faces and quadrature on them."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from estimators.distributions import mixed_dirichlet
from estimators.distributions.faces import Faces
from estimators.distributions.mixed import log_volume_of_faces
from estimators.distributions.mixed_dirichlet import MixedDirichlet
from estimators.sampler import Sampler
from estimators.spaces import Categoricals
from tests.estimators.every_outcome import EveryOutcome

DRAWS = 1_000_000
SCORES = torch.tensor([[[0.3, -1.2, 0.9]], [[-2.0, -0.4, -1.0]]], dtype=torch.float64)
CONCENTRATIONS = (0.3, 1.0, 8.0)
PATTERNS = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
"""The faces of three categories."""


def q_of(scores: Tensor, concentration: float = 1.0) -> MixedDirichlet:
    return MixedDirichlet(Categoricals(*scores.shape[1:]), scores, concentration)


def generator() -> Sampler:
    return Sampler(torch.Generator().manual_seed(0))


def patterns(categories: int) -> Tensor:
    """All faces, (2^C − 1, C)."""
    every = itertools.product([False, True], repeat=categories)
    return torch.tensor([face for face in every if any(face)])


def simplex(categories: int) -> tuple[Tensor, Tensor]:
    """Points (M, 1, C) of all faces of two or three categories, and their weights, by the trapezoid
    rule over log-odds: powers near the border do not matter to it."""
    odds = 0.4 * torch.arange(-90, 91, dtype=torch.float64)
    x, y, w = odds.sigmoid(), (-odds).sigmoid(), 0.4 * odds.sigmoid() * (-odds).sigmoid()
    points, weights = (
        [torch.eye(categories, dtype=torch.float64)],
        [torch.ones(categories).double()],
    )
    for first, second in itertools.combinations(range(categories), 2):
        edge = torch.zeros(len(x), categories, dtype=torch.float64)
        edge[:, first], edge[:, second] = x, y
        points.append(edge)
        weights.append(w)
    if categories == 3:
        inside = torch.stack([x[:, None].expand(-1, len(x)), y[:, None] * x, y[:, None] * y], dim=2)
        points.append(inside.flatten(0, 1))
        weights.append((w[:, None] * y[:, None] * w).flatten())
    return torch.cat(points)[:, None], torch.cat(weights)


def masses(q: MixedDirichlet) -> Tensor:
    """Density times measure at the points of `simplex`, (B, M)."""
    z, weight = simplex(q.space.categories)
    return q.log_prob(z.expand(len(q.scores), -1, -1, -1)).exp() * weight


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
@pytest.mark.parametrize("categories", [2, 3])
def test_atoms_and_densities_sum_to_one(categories: int, concentration: float) -> None:
    q = q_of(SCORES[..., :categories], concentration)
    one = torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(masses(q).sum(dim=1), one, rtol=0, atol=1e-9)
    check_prior(categories, q.log_volume)


def check_prior(categories: int, log_volume: float) -> None:
    """It is uniform, and integrates to one."""
    total = float(simplex(categories)[1].sum()) * math.exp(-log_volume)
    assert total == pytest.approx(1, abs=1e-9)


def test_a_prior_of_sizes_alone_is_found() -> None:
    """Without binomial coefficients, as if there were one face of each size."""
    assert log_volume_of_faces(10) == pytest.approx(5.09, abs=0.005)
    with pytest.raises(AssertionError):
        check_prior(3, math.log(sum(1 / math.factorial(size - 1) for size in (1, 2, 3))))


def exact_entropy(scores: Tensor, concentration: float) -> Tensor:
    """H(face) + Σ P(face) h of one variable (C,), over all faces."""
    face = patterns(len(scores))
    log_p = (face * scores).sum(dim=1).log_softmax(dim=0)
    alpha = 1 + concentration * scores.sigmoid()
    inside = [torch.distributions.Dirichlet(alpha[one]).entropy() for one in face]
    return (log_p.exp() * (torch.stack(inside) - log_p)).sum()


def rows(categories: int) -> Tensor:
    """Scores that are small, large, alike and on one side, (B, 1, C)."""
    maker = torch.Generator().manual_seed(1)
    random = torch.randn(2, categories, dtype=torch.float64, generator=maker)
    ends = torch.where(torch.arange(categories) % 2 == 0, 50.0, -50.0).double()
    same = torch.ones(categories, dtype=torch.float64)
    return torch.stack([random[0], 4 * random[1], ends, 50 * same, -50 * same])[:, None]


def check_entropy(kind: type[MixedDirichlet]) -> None:
    """Value and slope, in both precisions, are those of the sum over faces."""
    for categories, concentration in ((1, 1.0), (2, 0.3), (5, 1.0), (7, 20.0)):
        scores = rows(categories).requires_grad_()
        wanted = torch.stack([exact_entropy(row[0], concentration) for row in scores])
        (slopes,) = torch.autograd.grad(wanted.sum(), scores)
        for dtype, error in ((torch.float64, 1e-8), (torch.float32, 2e-5)):
            at = scores.detach().to(dtype).requires_grad_()
            entropy = kind(Categoricals(1, categories), at, concentration).entropy()
            assert entropy.dtype == dtype
            torch.testing.assert_close(
                entropy.detach().double(), wanted.detach(), rtol=0, atol=error
            )
            (slope,) = torch.autograd.grad(entropy.sum(), at)
            torch.testing.assert_close(slope.double(), slopes, rtol=0, atol=error + 1e-8)


def test_the_entropy_is_exact() -> None:
    check_entropy(MixedDirichlet)


class OfTheFacesAlone(MixedDirichlet):
    """What lies on a face has no entropy."""

    def entropy(self) -> Tensor:
        return self.faces.entropy().sum(dim=1)


class AtTheMeanFace(MixedDirichlet):
    """h of the mean sum of concentrations, in place of its mean."""

    def _mean_of_sum(self, scores: Tensor, more: Tensor) -> Tensor:
        on = Faces(scores).marginals
        size, extra = on.sum(dim=2), (on * more).sum(dim=2)
        return extra * (size + extra).digamma() - (size + extra).lgamma()


class WithTheEmptyFace(MixedDirichlet):
    """The bits of a face are independent, as if it might be empty."""

    def entropy(self) -> Tensor:
        faces = Faces(self.scores)
        faces.log_any = torch.zeros_like(faces.log_any)
        return super().entropy() - self.faces.entropy().sum(dim=1) + faces.entropy().sum(dim=1)


@pytest.mark.parametrize("mutant", [OfTheFacesAlone, AtTheMeanFace, WithTheEmptyFace])
def test_another_entropy_is_found(mutant: type[MixedDirichlet]) -> None:
    with pytest.raises(AssertionError):
        check_entropy(mutant)


@pytest.mark.parametrize("categories", [2, 3])
def test_the_entropy_is_that_of_the_density(categories: int) -> None:
    """And of its samples: KL(q ‖ q) = 0; KL to the prior is what is left of the volume."""
    q = q_of(SCORES[..., :categories], 2.0)
    mass, log_q = masses(q), masses(q).log() - simplex(categories)[1].log()
    torch.testing.assert_close(-(mass * log_q).sum(dim=1), q.entropy(), rtol=0, atol=1e-8)
    drawn = q.log_prob(q.sample(generator(), DRAWS // 10))
    noise = drawn.std(dim=1) / (DRAWS // 10) ** 0.5
    assert ((drawn.mean(dim=1) + q.entropy()).abs() <= 4.5 * noise).all()
    divergence = (mass * (log_q + q.log_volume)).sum(dim=1)
    torch.testing.assert_close(q.log_volume - q.entropy(), divergence, rtol=0, atol=1e-8)
    assert (divergence > 0).all()


@pytest.mark.parametrize("score", [-3.0, 0.0, 12.0])
@pytest.mark.parametrize("categories", [32, 256])
def test_the_entropy_of_many_like_categories_is_exact(categories: int, score: float) -> None:
    """Faces of a size are alike, and the size is binomial."""
    concentration = 2.0
    alpha = 1 + concentration * special.expit(score)
    n = np.arange(1, categories + 1)
    log_size = stats.binom.logpmf(n, categories, special.expit(score))
    p = np.exp(log_size - special.logsumexp(log_size))
    inside = [stats.dirichlet(np.full(size, alpha)).entropy() if size > 1 else 0.0 for size in n]
    log_count = special.gammaln(categories + 1) - special.gammaln(n + 1)
    log_count -= special.gammaln(categories - n + 1)
    wanted = (p * (np.array(inside) + log_count)).sum() + special.entr(p).sum()
    scores = torch.full((1, 1, categories), score, dtype=torch.float64)
    q = q_of(scores, concentration)
    assert float(q.entropy()) == pytest.approx(wanted, abs=1e-8 + 2e-11 * abs(wanted))
    torch.testing.assert_close(
        q.rounded().probabilities, torch.full_like(scores, 1 / categories), rtol=1e-9, atol=0
    )


def test_a_smaller_step_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = torch.Generator().manual_seed(3)
    scores = torch.randn(4, 1, 64, dtype=torch.float64, generator=maker) * torch.arange(1, 5).view(
        4, 1, 1
    )
    found = q_of(scores).entropy(), q_of(scores).rounded().probabilities
    monkeypatch.setattr(mixed_dirichlet, "STEP", 0.1)
    monkeypatch.setattr(mixed_dirichlet, "LEVEL_STEP", 0.1)
    mixed_dirichlet._binet.cache_clear()
    better = q_of(scores).entropy(), q_of(scores).rounded().probabilities
    mixed_dirichlet._binet.cache_clear()
    torch.testing.assert_close(found[0], better[0], rtol=0, atol=1e-8)
    torch.testing.assert_close(found[1], better[1], rtol=0, atol=1e-7)


def test_faces_are_drawn_as_often_as_they_say() -> None:
    """Every outcome of the draws that make a face, with its probability."""
    scores = torch.tensor([[0.4, -1.0, 2.0], [-0.3, 0.1, -50.0]], dtype=torch.float64)[None]
    recording = EveryOutcome.recording()
    Faces(scores).sample(recording, 1)
    dealer, outcomes = EveryOutcome(recording.draws), math.prod(recording.draws)
    drawn = Faces(scores.expand(outcomes, -1, -1)).sample(dealer, 1)[:, 0]
    assert float(dealer.weight.sum()) == pytest.approx(1)
    for first, second in itertools.product(patterns(3), repeat=2):
        face = torch.stack([first, second])
        wanted = Faces(scores).log_prob(face[None, None])[0, 0].sum().exp()
        found = dealer.weight[(drawn == face).all(dim=2).all(dim=1)].sum()
        torch.testing.assert_close(found, wanted)


def test_faces_are_enumerated_right() -> None:
    scores = rows(5)
    face = patterns(5)
    log_p = (face * scores).sum(dim=2).log_softmax(dim=1)
    faces, p = Faces(scores), log_p.exp()
    every = face.expand(len(scores), -1, -1)[:, :, None]
    torch.testing.assert_close(faces.log_prob(every)[..., 0], log_p, rtol=0, atol=1e-12)
    torch.testing.assert_close(faces.marginals[:, 0], p @ face.double(), rtol=1e-9, atol=0)
    torch.testing.assert_close(faces.entropy()[:, 0], torch.special.entr(p).sum(dim=1))
    alone = log_p[:, [int((face == one).all(dim=1).nonzero()) for one in torch.eye(5).bool()]]
    torch.testing.assert_close(faces.log_vertex()[:, 0], alone, rtol=0, atol=1e-12)


def check_draws(kind: type[MixedDirichlet]) -> None:
    """Faces, nearest vertices, E[z] and E[z z'] of samples are those of the density."""
    q = kind(Categoricals(1, 3), SCORES, 2.0)
    z, draws = q.sample(generator(), DRAWS // 2), DRAWS // 2
    on, (point, _), mass = (z > 0).squeeze(2), simplex(3), masses(q)
    found, wanted = [], []
    for pattern in PATTERNS:
        there = torch.tensor([category in pattern for category in range(3)])
        found.append((on == there).all(dim=2).double().mean(dim=1))
        wanted.append(mass[:, ((point[:, 0] > 0) == there).all(dim=1)].sum(dim=1))
    for category in range(3):
        found.append((z.argmax(dim=3) == category).double().mean(dim=(1, 2)))
        wanted.append(q.rounded().probabilities[:, 0, category])
    p, drawn = torch.stack(wanted), torch.stack(found)
    assert ((drawn - p).abs() <= 4.5 * (p * (1 - p) / draws).sqrt()).all()
    torch.testing.assert_close(q.on_vertex(), p[:3].sum(dim=0))
    for power in (1, 2):
        values, mean = z[:, :, 0] ** power, mass @ point[:, 0] ** power
        noise = values.std(dim=1) / draws**0.5
        assert ((values.mean(dim=1) - mean).abs() <= 4.5 * noise).all()
    sizes = q.face_sizes(z)
    assert torch.equal(sizes, on.sum(dim=2, keepdim=True).double())


def test_draws_are_as_frequent_as_the_density_says() -> None:
    check_draws(MixedDirichlet)


class OnItsOwnFace(MixedDirichlet):
    """Samples whose face has each category with its marginal, or all where none."""

    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        p = self.scores.sigmoid().flatten(1)
        face = sampler.bernoulli(p, samples).unflatten(2, self.scores.shape[1:])
        face = torch.where(face.sum(dim=3, keepdim=True) == 0, 1.0, face)
        parts = sampler.gamma(self.alpha, samples) * face
        return parts / parts.sum(dim=3, keepdim=True)


class Uniform(MixedDirichlet):
    """Samples that are uniform on their face."""

    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        parts = sampler.gamma(torch.ones_like(self.scores), samples)
        parts = parts * self.faces.sample(sampler, samples)
        return parts / parts.sum(dim=3, keepdim=True)


@pytest.mark.parametrize("mutant", [OnItsOwnFace, Uniform])
def test_other_draws_are_found(mutant: type[MixedDirichlet]) -> None:
    with pytest.raises(AssertionError):
        check_draws(mutant)


def test_variables_are_apart() -> None:
    scores = torch.randn(4, 3, 5, dtype=torch.float64)
    q, each = q_of(scores), [q_of(scores[:, [v]]) for v in range(3)]
    z = q.sample(generator(), 6)
    apart = sum(one.log_prob(z[:, :, [v]]) for v, one in enumerate(each))
    torch.testing.assert_close(q.log_prob(z), apart)
    torch.testing.assert_close(q.entropy(), sum(one.entropy() for one in each))
    assert q.log_volume == pytest.approx(3 * each[0].log_volume)
    torch.testing.assert_close(q.on_vertex(), sum(one.on_vertex() for one in each) / 3)


@pytest.mark.parametrize("size", [20.0, 50.0])
def test_extreme_scores_give_numbers_that_are_right(size: float) -> None:
    """Single precision has those of double, and samples stay on their faces."""
    scores = size * torch.tensor([[[1.0, -1, 0]], [[-1, -0.98, -1]], [[1, 0.99, 1]]])
    z = q_of(scores, 20.0).sample(generator(), 1000)
    faces = q_of(scores, 20.0).faces.sample(generator(), 1000)
    assert z.isfinite().all()
    torch.testing.assert_close(z.sum(dim=3), torch.ones(3, 1000, 1))
    assert faces.any(dim=3).all()
    assert set(q_of(scores, 20.0).face_sizes(z)[2].flatten().tolist()) == {3.0}
    found = []
    for dtype in (torch.float64, torch.float32):
        at = scores.to(dtype).requires_grad_()
        q = q_of(at)
        log_q, entropy = q.log_prob(z.to(dtype)), q.entropy()
        slopes = [torch.autograd.grad(one.sum(), at)[0] for one in (log_q.mean(dim=1), entropy)]
        values = [log_q, entropy, *slopes, q.on_vertex(), q.rounded().probabilities]
        assert all(value.isfinite().all() for value in values)
        found.append([value.detach().double() for value in values])
    for right, rounded in zip(*found, strict=True):
        torch.testing.assert_close(rounded, right, rtol=2e-5, atol=2e-5)
