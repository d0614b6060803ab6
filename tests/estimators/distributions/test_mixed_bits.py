"""Mixed bits against quadrature of their density, and what the public code has wrong."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from estimators.distributions import mixed_bits
from estimators.distributions.levels import Gumbel, Kumaraswamy, Logistic, Normal, Sigmoid
from estimators.distributions.mixed import MixedDistribution
from estimators.distributions.mixed_bits import (
    ClippedGaussianBits,
    KumaraswamyBits,
    LogisticNormalBits,
    MixedBits,
    SpikeExponentialBits,
)
from estimators.sampler import Sampler
from estimators.spaces import Bits
from tests.estimators.contract import central_differences
from tests.estimators.faces import faces

BIT = Bits(1)
DRAWS = 1_000_000

Make = Callable[[Tensor], MixedDistribution]
"""A q of one bit from scores (B, 1)."""


def hard_concrete(temperature: float, stretch: float = 0.1) -> Make:
    return lambda scores: MixedBits(BIT, scores, Logistic(), Sigmoid(stretch, temperature))


def hard_kuma(b: float, stretch: float = 0.1) -> Make:
    return lambda scores: MixedBits(BIT, scores, Kumaraswamy(b), Gumbel(stretch))


KINDS: dict[str, Make] = {
    "hard-concrete": hard_concrete(2 / 3),
    "hard-concrete-hot": hard_concrete(2.0, 0.02),
    "hard-concrete-10": hard_concrete(10.0),
    "hard-concrete-cold": hard_concrete(0.1, 0.5),
    "hard-kuma": hard_kuma(1.0),
    "hard-kuma-2": hard_kuma(2.5, 0.02),
    "hard-kuma-half": hard_kuma(0.4, 0.5),
    "gaussian": lambda scores: ClippedGaussianBits(BIT, scores, 1.0),
    "gaussian-narrow": lambda scores: ClippedGaussianBits(BIT, scores, 0.3),
    "logistic-normal": lambda scores: LogisticNormalBits(BIT, scores, 1.0),
    "logistic-normal-wide": lambda scores: LogisticNormalBits(BIT, scores, 2.5),
    "hard-kuma-5": hard_kuma(5.0, 1e-3),
    "hard-kuma-tenth": hard_kuma(0.1, 1e-3),
    "kumaraswamy": lambda scores: KumaraswamyBits(BIT, scores, 1.0),
    "kumaraswamy-2": lambda scores: KumaraswamyBits(BIT, scores, 2.0),
    "spike": lambda scores: SpikeExponentialBits(BIT, scores, 3.0),
}
SCORES = (-1.5, -0.2, 0.0, 0.7, 2.0)
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())


def numbers(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def score(value: float) -> Tensor:
    return numbers([[value]])


ENDS = numbers([0.0, 1.0])


def measured(q: MixedDistribution) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where a bit can be, its measure there and q's density in it, and the prior's."""
    z, weight = faces(q)
    density = q.log_prob(z[None, :, None])[0].exp()
    return z, weight, density, torch.full_like(density, -q.log_volume).exp()


def expectation(make: Make, f: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    z, weight, density, _ = measured(make(at))
    return (weight * density * f(z)).sum()


@every_kind
@pytest.mark.parametrize("value", SCORES)
def test_atoms_and_density_sum_to_one(make: Make, value: float) -> None:
    _, weight, density, prior = measured(make(score(value)))
    assert float(weight @ density) == pytest.approx(1, abs=1e-9)
    assert float(weight @ prior) == pytest.approx(1, abs=1e-9)


def check_entropy(make: Make) -> None:
    """That of the density, and of the prior the divergence; and its slope."""
    for value in SCORES:
        q = make(score(value))
        _, weight, density, prior = measured(q)
        found, terms = q.entropy(), torch.special.xlogy(density, density)
        torch.testing.assert_close(found, -(weight @ terms)[None], rtol=0, atol=1e-8)
        divergence = weight @ (terms - density * prior.log())
        torch.testing.assert_close(q.log_volume - found, divergence[None], rtol=0, atol=1e-8)
        assert divergence > -1e-8

        def entropy(at: Tensor) -> Tensor:
            return make(at).entropy()[0]

        at = score(value).requires_grad_()
        (slope,) = torch.autograd.grad(entropy(at), at)
        wanted = central_differences(entropy, score(value), 1e-4)
        torch.testing.assert_close(slope, wanted, rtol=1e-6, atol=1e-7)


@every_kind
def test_the_entropy_is_that_of_the_density(make: Make) -> None:
    check_entropy(make)


@every_kind
def test_more_nodes_change_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """At scores, too, where the quadrature above is too coarse."""
    scores = torch.linspace(-12, 12, 97, dtype=torch.float64)[:, None]
    found = make(scores).entropy()
    monkeypatch.setattr(mixed_bits, "DIGITS", 1e-26)
    mixed_bits._legendre.cache_clear()
    better = make(scores).entropy()
    mixed_bits._legendre.cache_clear()
    torch.testing.assert_close(found, better, rtol=1e-12, atol=2e-9)


class Slices(Sampler):
    """Deals the midpoints of equal slices of the noise's law to the rows."""

    NODES = 400_000

    def _dealt(self, law: stats.rv_continuous, samples: int) -> Tensor:
        assert samples == 1
        u = (torch.arange(self.NODES, dtype=torch.float64) + 0.5) / self.NODES
        return torch.from_numpy(law.ppf(u.numpy()))[:, None, None]

    def logistic(self, like: Tensor, samples: int) -> Tensor:
        return self._dealt(stats.logistic, samples)

    def normal(self, like: Tensor, samples: int) -> Tensor:
        return self._dealt(stats.norm, samples)


COSTS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda z: z,
    torch.square,
    lambda z: (3 * z - 1).tanh() + (2 - 5 * z).sigmoid().square(),
)


def check_pathwise(make: Make) -> None:
    """Mean and slope through the sample are those of the density: of z, z² and a network."""
    for f in COSTS:
        for value in SCORES:
            at = score(value).expand(Slices.NODES, 1).requires_grad_()
            mean = f(make(at).sample(Slices(), 1)).mean()
            (slope,) = torch.autograd.grad(mean, at)
            wanted = expectation(make, f, score(value))
            torch.testing.assert_close(mean.detach(), wanted, rtol=0, atol=2e-5)
            moved = central_differences(
                lambda s, f=f: expectation(make, f, s),
                score(value),
                1e-4,  # type: ignore[misc]
            )
            torch.testing.assert_close(slope.sum(), moved[0, 0], rtol=0, atol=1e-4)


@every_kind
def test_the_slope_through_a_sample_is_that_of_the_mean(make: Make) -> None:
    check_pathwise(make)


def check_frequencies(make: Make) -> None:
    """How often z is 0, 1, and above ½."""
    scores = numbers([[-0.8], [0.3]])
    q = make(scores)
    z = q.sample(Sampler(torch.Generator().manual_seed(0)), DRAWS)
    assert ((z >= 0) & (z <= 1)).all()
    atoms = q.log_prob(ENDS.expand(2, 2)[:, :, None]).exp()
    if isinstance(q, SpikeExponentialBits):
        atoms[:, 1] = 0
    elif isinstance(q, LogisticNormalBits | KumaraswamyBits):
        atoms[:] = 0
    found = torch.stack([(z == 0), (z == 1), (z > 0.5)]).squeeze(3).double().mean(dim=2)
    wanted = torch.stack([*atoms.T, q.rounded().marginals()[:, 0]])
    noise = (wanted * (1 - wanted) / DRAWS).sqrt()
    assert ((found - wanted).abs() <= 4.5 * noise).all()
    torch.testing.assert_close(q.on_vertex(), wanted[:2].sum(dim=0))


@every_kind
def test_draws_are_as_frequent_as_the_atoms_say(make: Make) -> None:
    check_frequencies(make)


@every_kind
def test_samples_diverge_from_the_density_by_nothing(make: Make) -> None:
    """KL(q ‖ q) = 0: the mean of log q over them is minus the entropy."""
    q = make(numbers([[-0.8], [0.3]]))
    log_q = q.log_prob(q.sample(Sampler(torch.Generator().manual_seed(1)), DRAWS // 10))
    noise = log_q.std(dim=1) / (DRAWS // 10) ** 0.5
    assert ((log_q.mean(dim=1) + q.entropy()).abs() <= 4.5 * noise).all()


class Spread(Sampler):
    """Noise from −5 to 5."""

    def normal(self, like: Tensor, samples: int) -> Tensor:
        noise = torch.linspace(-5, 5, samples, dtype=torch.float64).to(like.dtype)
        return noise[None, :, None].expand(len(like), -1, 1)

    logistic = normal


@every_kind
def test_extreme_scores_give_numbers_that_are_right(make: Make) -> None:
    """Single precision has those of double: entropy, samples and their slopes, atoms, densities."""
    found: list[list[Tensor]] = []
    for dtype in (torch.float64, torch.float32):
        scores = torch.tensor([-50.0, -30, -20, 20, 30, 50], dtype=dtype)[:, None].requires_grad_()
        q = make(scores)
        z = q.sample(Spread(), 9)
        slopes = [torch.autograd.grad(one.sum(), scores)[0] for one in (q.entropy(), z)]
        values = [q.entropy(), z, *slopes, q.on_vertex(), q.rounded().scores]
        assert all(value.isfinite().all() for value in values)
        found.append([value.detach().double() for value in values])
        log_q, right = q.log_prob(z.detach()), make(scores.double()).log_prob(z.detach().double())
        if not isinstance(q, LogisticNormalBits | KumaraswamyBits):  # those are rounded to the ends
            torch.testing.assert_close(log_q.double(), right, rtol=1e-5, atol=1e-4)
        assert log_q.isfinite().all()
    for right, rounded in zip(*found, strict=True):
        torch.testing.assert_close(rounded, right, rtol=2e-5, atol=2e-5)


def check_all(make: Make) -> None:
    check_entropy(make)
    check_pathwise(make)
    check_frequencies(make)


class OfHalfTheVariance(ClippedGaussianBits):
    """Noise on both of two scores (z, 1 − z), each with a standard deviation that entropy and
    density take for that of z."""

    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        narrow = ClippedGaussianBits(self.space, self.scores, self.law.std / 2)
        return narrow.sample(sampler, samples)


class StdForOne(ClippedGaussianBits):
    """σ / 2 in place of ½ in the entropy."""

    def entropy_between(self) -> Tensor:
        low, high = ((end - self.scores) / self.law.std for end in (-1, 1))
        between = torch.special.ndtr(high) - torch.special.ndtr(low)
        right = super().entropy_between()
        return right + between * (self.law.std / 2 - 1) / 2


class Floored(MixedBits):
    """An ε in every logarithm."""

    def entropy(self) -> Tensor:
        zero, one = (log_p.exp() for log_p in self.log_atoms())
        found = self.entropy_between()
        return (found - zero * (zero + 1e-4).log() - one * (one + 1e-4).log()).sum(dim=1)


class OfTheAtomsAlone(MixedBits):
    """What lies between them has no entropy."""

    def entropy_between(self) -> Tensor:
        return torch.zeros_like(self.scores)


class Unclipped(MixedBits):
    """The entropy of the stretched variable before it is clipped."""

    def entropy(self) -> Tensor:
        nodes = torch.linspace(-60, 60, 4001, dtype=torch.float64)
        log_f = self.law.log_density(nodes)
        level = self.scores[:, :, None] + nodes
        terms = log_f.exp() * (self.link.log_slope(level) - log_f)
        return (terms.sum(dim=2) * 0.03).sum(dim=1)


class Narrowed(Kumaraswamy):
    """Uniform noise in (0.001, 0.999)."""

    def sample(self, like: Tensor, sampler: Sampler, samples: int) -> Tensor:
        u = sampler.logistic(like, samples).sigmoid()

        class Within(Sampler):
            def logistic(self, like: Tensor, samples: int) -> Tensor:
                return (0.001 + 0.998 * u).logit()

        return super().sample(like, Within(), samples)


class Unshifted(SpikeExponentialBits):
    """The noise of a bit that is on is not stretched over (0, 1) again."""

    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        noise = sampler.logistic(self.scores, samples)
        perturbed = noise + self.scores[:, None]
        share = torch.where(perturbed > 0, perturbed.sigmoid(), 0)
        return (share * math.expm1(self.sharpness)).log1p() / self.sharpness


MUTANTS: dict[str, Make] = {
    "half the variance": lambda scores: OfHalfTheVariance(BIT, scores, 0.8),
    "std for one": lambda scores: StdForOne(BIT, scores, 0.8),
    "an epsilon": lambda scores: Floored(BIT, scores, Logistic(), Sigmoid(0.1, 2 / 3)),
    "atoms alone": lambda scores: OfTheAtomsAlone(BIT, scores, Logistic(), Sigmoid(0.1, 2 / 3)),
    "unclipped": lambda scores: Unclipped(BIT, scores, Logistic(), Sigmoid(0.1, 2 / 3)),
    "narrow noise": lambda scores: MixedBits(BIT, scores, Narrowed(1.0), Gumbel(0.1)),
    "unshifted": lambda scores: Unshifted(BIT, scores, 3.0),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_fault_of_public_code_is_found(mutant: Make) -> None:
    with pytest.raises(AssertionError):
        check_all(mutant)


def test_the_atoms_are_those_of_the_papers() -> None:
    """Formulas for α, a and b, and for a Gaussian with mean 0.3."""
    zero, one = (
        float(log_p.exp())
        for log_p in KINDS["hard-concrete"](score(0.4)).log_atoms()  # type: ignore[attr-defined]
    )
    assert zero == pytest.approx(1 / (1 + math.exp(0.4 + 2 / 3 * math.log(11))))
    assert one == pytest.approx(1 / (1 + math.exp(-0.4 + 2 / 3 * math.log(11))))
    a, b = math.exp(0.4), 2.5
    q = hard_kuma(b)(score(0.4))
    assert isinstance(q, MixedBits)
    zero, one = (float(log_p.exp()) for log_p in q.log_atoms())
    assert zero == pytest.approx(1 - (1 - (1 / 12) ** a) ** b)
    assert one == pytest.approx((1 - (11 / 12) ** a) ** b)
    gaussian = ClippedGaussianBits(BIT, score(2 * 0.3 - 1), math.sqrt(2))
    assert float(gaussian.log_atoms()[0].exp()) == pytest.approx(float(stats.norm.cdf(-0.3)))


def test_a_spike_has_the_divergence_of_its_bit() -> None:
    q = SpikeExponentialBits(BIT, score(1.2), 3.0)
    p = F.sigmoid(score(1.2))
    divergence = (p * (2 * p).log() + (1 - p) * (2 * (1 - p)).log()).sum()
    torch.testing.assert_close(q.log_volume - q.entropy(), divergence[None])


def test_bits_are_apart() -> None:
    """Of several bits densities multiply, and entropies add up."""
    scores = torch.randn(4, 3, dtype=torch.float64)
    together = MixedBits(Bits(3), scores, Normal(1.0), Sigmoid(0.1))
    each = [MixedBits(BIT, scores[:, [i]], Normal(1.0), Sigmoid(0.1)) for i in range(3)]
    z = numbers([[0.0, 0.4, 1.0], [0.2, 0.0, 0.9]]).expand(4, 2, 3)
    apart = sum(one.log_prob(z[:, :, [i]]) for i, one in enumerate(each))
    torch.testing.assert_close(together.log_prob(z), apart)
    torch.testing.assert_close(together.entropy(), sum(one.entropy() for one in each))
    assert together.log_volume == pytest.approx(3 * math.log(3))
