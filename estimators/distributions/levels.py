"""Laws of a real number, the level, and links from levels to a bit in [0, 1].

A mixed bit is z = link(score + noise): it is 0 below a level, 1 above another, and follows a smooth
curve between them. All logarithms are right where the probabilities themselves underflow.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from estimators.sampler import Sampler

Any = Float[Tensor, "*any"]


class Law(ABC):
    """Of the noise."""

    @property
    @abstractmethod
    def strip(self) -> float:
        """The density's logarithm is analytic where the imaginary part is smaller than this."""

    @abstractmethod
    def sample(
        self, like: Float[Tensor, "B D"], sampler: Sampler, samples: int
    ) -> Float[Tensor, "B {samples} D"]:
        """Independent noise."""

    @abstractmethod
    def log_density(self, noise: Any) -> Any: ...

    @abstractmethod
    def log_below(self, noise: Any) -> Any:
        """Log-probability of less noise than this."""

    @abstractmethod
    def log_above(self, noise: Any) -> Any:
        """Log-probability of more."""


@dataclass(frozen=True)
class Logistic(Law):
    """Of which a sign is a Bernoulli variable with the score as log-odds."""

    strip: ClassVar[float] = math.pi

    def sample(
        self, like: Float[Tensor, "B D"], sampler: Sampler, samples: int
    ) -> Float[Tensor, "B {samples} D"]:
        return sampler.logistic(like, samples)

    def log_density(self, noise: Any) -> Any:
        return F.logsigmoid(noise) + F.logsigmoid(-noise)

    def log_below(self, noise: Any) -> Any:
        return F.logsigmoid(noise)

    def log_above(self, noise: Any) -> Any:
        return F.logsigmoid(-noise)


@dataclass(frozen=True)
class Normal(Law):
    """With mean 0."""

    std: float
    strip: ClassVar[float] = math.inf

    def sample(
        self, like: Float[Tensor, "B D"], sampler: Sampler, samples: int
    ) -> Float[Tensor, "B {samples} D"]:
        return self.std * sampler.normal(like, samples)

    def log_density(self, noise: Any) -> Any:
        return -(noise / self.std).square() / 2 - math.log(self.std * math.sqrt(2 * math.pi))

    def log_below(self, noise: Any) -> Any:
        return torch.special.log_ndtr(noise / self.std)

    def log_above(self, noise: Any) -> Any:
        return torch.special.log_ndtr(-noise / self.std)


@dataclass(frozen=True)
class Kumaraswamy(Law):
    """−log T, where P(T ≤ t) = (1 − e^(−t))^b: then exp(−e^(−(score + noise))), at the score log a,
    is s = (1 − (1 − u)^(1/b))^(1/a), a Kumaraswamy(a, b) variable. Gumbel noise where b = 1."""

    b: float
    strip: ClassVar[float] = math.pi / 2

    def sample(
        self, like: Float[Tensor, "B D"], sampler: Sampler, samples: int
    ) -> Float[Tensor, "B {samples} D"]:
        w = F.softplus(sampler.logistic(like, samples)) / self.b  # −log u / b
        late = w > 37  # where T is e^(−w)
        return torch.where(late, w, -(-log_minus(w.masked_fill(late, 1))).log())

    def log_density(self, noise: Any) -> Any:
        t = _exponential(-noise)
        return math.log(self.b) + (self.b - 1) * log_minus(t) - t - noise

    def log_below(self, noise: Any) -> Any:
        t = _exponential(-noise)
        late = t > 37  # where 1 − (1 − e^(−t))^b is b e^(−t), in double precision too
        near = log_minus(-self.b * log_minus(t.masked_fill(late, 1)))
        return torch.where(late, math.log(self.b) - t, near)

    def log_above(self, noise: Any) -> Any:
        return self.b * log_minus(_exponential(-noise))


def log_minus(t: Any) -> Any:
    """log(1 − e^(−t)) for t > 0."""
    small = t < math.log(2)
    of_small = (-(-t.masked_fill(~small, 1)).expm1()).log()
    return torch.where(small, of_small, (-(-t.masked_fill(small, 1)).exp()).log1p())


def _exponential(level: Any) -> Any:
    """e^level, which stays a number, and positive, in single precision."""
    return level.clamp(-80, 80).exp()


class Link(ABC):
    """An increasing map from levels to [0, 1]: a curve that is cut off at 0 and 1."""

    @cached_property
    def low(self) -> float:
        """The level below which z is 0; −∞ where it never is."""
        return float(self.level(torch.zeros((), dtype=torch.float64)))

    @cached_property
    def half(self) -> float:
        """The level where z is ½."""
        return float(self.level(torch.full((), 0.5, dtype=torch.float64)))

    @cached_property
    def high(self) -> float:
        """The level above which z is 1; ∞ where it never is."""
        return float(self.level(torch.ones((), dtype=torch.float64)))

    @property
    @abstractmethod
    def strip(self) -> float:
        """The curve's log-slope is analytic where the imaginary part is smaller than this."""

    @property
    def has_atoms(self) -> bool:
        return math.isfinite(self.low)

    @abstractmethod
    def z(self, level: Any) -> Any: ...

    @abstractmethod
    def level(self, z: Any) -> Any:
        """Of z within (0, 1)."""

    @abstractmethod
    def log_slope(self, level: Any) -> Any:
        """log ∂z/∂level within (0, 1)."""


@dataclass(frozen=True)
class Line(Link):
    """(1 + level) / 2: sparsemax of the scores (level, 0)."""

    strip: ClassVar[float] = math.inf

    def z(self, level: Any) -> Any:
        return ((1 + level) / 2).clamp(0, 1)

    def level(self, z: Any) -> Any:
        return 2 * z - 1

    def log_slope(self, level: Any) -> Any:
        return torch.full_like(level, -math.log(2))


@dataclass(frozen=True)
class Stretched(Link):
    """(1 + 2γ) s(level) − γ, with s from 0 to 1; γ = 0 leaves no atoms."""

    stretch: float
    """γ."""

    def z(self, level: Any) -> Any:
        return ((1 + 2 * self.stretch) * self.share(level) - self.stretch).clamp(0, 1)

    def level(self, z: Any) -> Any:
        return self.level_of((z + self.stretch) / (1 + 2 * self.stretch))

    def log_slope(self, level: Any) -> Any:
        return math.log1p(2 * self.stretch) + self.log_slope_of_share(level)

    @abstractmethod
    def share(self, level: Any) -> Any:
        """s."""

    @abstractmethod
    def level_of(self, share: Any) -> Any: ...

    @abstractmethod
    def log_slope_of_share(self, level: Any) -> Any: ...


@dataclass(frozen=True)
class Sigmoid(Stretched):
    """s = σ(level / τ)."""

    temperature: float = 1.0

    @property
    def strip(self) -> float:
        return math.pi * self.temperature

    def share(self, level: Any) -> Any:
        return (level / self.temperature).sigmoid()

    def level_of(self, share: Any) -> Any:
        return self.temperature * share.logit()

    def log_slope_of_share(self, level: Any) -> Any:
        at = level / self.temperature
        return F.logsigmoid(at) + F.logsigmoid(-at) - math.log(self.temperature)


@dataclass(frozen=True)
class Gumbel(Stretched):
    """s = exp(−e^(−level)), the distribution function of a Gumbel variable."""

    strip: ClassVar[float] = math.inf

    def share(self, level: Any) -> Any:
        return (-_exponential(-level)).exp()

    def level_of(self, share: Any) -> Any:
        return -(-share.log()).log()

    def log_slope_of_share(self, level: Any) -> Any:
        return -level - _exponential(-level)
