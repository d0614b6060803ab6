"""A latent space: the finite set that a latent variable takes its values from.

Each of its assignments z has an indicator vector, `point(z)`, and the plain q over it is the same
exponential family for every space:

    q(z) ∝ exp ⟨scores, point(z)⟩

An estimator whose mathematics does not care which space it is is written once, over this.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from estimators.sampler import Sampler
from estimators.spaces.distribution import PlainDistribution


class Space(ABC):
    """What an estimator, a task and the harness may know of a latent variable."""

    name: ClassVar[str]
    """As commands and tables call it."""
    scores_shape: tuple[int, ...]
    """Of a row's scores."""
    z_shape: tuple[int, ...]
    """Of an assignment."""
    point_shape: tuple[int, ...]
    """Of its indicator vector, and of a relaxed one."""
    count: int
    """How many assignments there are."""
    log_assignments: float
    """The log of that."""
    dimension: int
    """Of the hull of all points: one more of them are enough for any mean."""
    noise_samples_q: bool = True
    """Whether the best assignment of scores plus `noise` is a sample of the plain q. Of structures
    no simple noise does that: theirs is perturb-and-MAP, with a law of its own."""

    def __init__(self) -> None:
        self.oracle_calls = 0
        """Rows that `best` was asked for so far."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    @abstractmethod
    def __repr__(self) -> str:
        """As it is written in Python: two that are written alike are equal."""

    @property
    @abstractmethod
    def size(self) -> int:
        """D of bits, C of a categorical variable: what a table says of how large it is."""

    @property
    def single(self) -> bool:
        """One variable, whose values can be listed however many they are."""
        return self.z_shape == (1,)

    @abstractmethod
    def every(self, like: Tensor) -> Shaped[Tensor, "M *z"]:
        """All assignments, on the device of `like`, and of its dtype where they are floats.

        Raises:
            ValueError: there are too many to list.
        """

    @abstractmethod
    def point(
        self, z: Shaped[Tensor, "*batch"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "*points"]:
        """Indicator vectors (*batch, *point) of assignments (*batch, *z); points as they are."""

    def best(self, scores: Float[Tensor, "*batch"]) -> Shaped[Tensor, "*assignments"]:
        """The MAP oracle: the assignment of highest score for scores (*batch, *scores), without a
        gradient. Each is counted as an oracle call."""
        self.oracle_calls += scores.shape[: scores.dim() - len(self.scores_shape)].numel()
        return self._best(scores.detach())

    @abstractmethod
    def _best(self, scores: Float[Tensor, "*batch"]) -> Shaped[Tensor, "*assignments"]:
        """What `best` gives."""

    @abstractmethod
    def plain(self, scores: Float[Tensor, "B *scores"]) -> PlainDistribution:
        """q(z) ∝ exp ⟨scores, point(z)⟩."""

    @abstractmethod
    def soft(self, scores: Float[Tensor, "*batch"]) -> Float[Tensor, "*points"]:
        """Marginals of the plain q for scores (*batch, *scores): the soft form of `best`."""

    @abstractmethod
    def noise(
        self, like: Float[Tensor, "B *scores"], sampler: Sampler, samples: int
    ) -> Float[Tensor, "B {samples} *scores"]:
        """Noise for the scores. The best assignment of their sum is a sample of the plain q where
        `noise_samples_q`; else of a law that is another one, but concentrates where q does."""

    @abstractmethod
    def noise_slope(self, noise: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """−∂ log p / ∂noise, of the density p of `noise`."""

    @abstractmethod
    def nearest(self, target: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The projections of vectors (*batch, *point) on the hull of all points."""

    def along(
        self, point: Float[Tensor, "B S *point"], slope: Float[Tensor, "B #S *point"]
    ) -> Float[Tensor, "B S *ones"]:
        """⟨slope, point⟩ of each independent variable, with ones that let it multiply points."""
        dimensions = tuple(range(-len(self.point_shape), 0))
        return (point * slope).sum(dim=dimensions, keepdim=True)

    @abstractmethod
    def centred(self, scores: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The projections of scores on the span of the differences of points: what is left is all
        that q depends on."""


class Ranked(Space):
    """A space whose assignments can be listed from the best on."""

    name = "spaces with a list of the best"

    @abstractmethod
    def topk_sparsemax(
        self, scores: Float[Tensor, "B *scores"], k: int
    ) -> tuple[Shaped[Tensor, "B {k} *z"], Float[Tensor, "B {k}"]]:
        """The k assignments of highest score, and sparsemax over them (Correia et al. 2020,
        section 4.1); over all where k is their number.

        Raises:
            ValueError: k is out of range, or a score is not finite.
        """


class Factorised(Ranked):
    """A space of independent variables: q is a product, and marginals say all of it."""

    name = "factorised spaces"

    @abstractmethod
    def smoothed(
        self, marginals: Float[Tensor, "B *point"], share: float
    ) -> Float[Tensor, "B *scores"]:
        """Scores of a plain q with these marginals, but for a share of at most 1 that goes to the
        uniform q: every assignment has a positive probability."""

    @abstractmethod
    def pulled_back(
        self, marginals: Float[Tensor, "*batch"], slope: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        """⟨slope, ∂μ/∂scores⟩, at these marginals μ of the plain q."""

    @abstractmethod
    def perturbed_given(
        self,
        scores: Float[Tensor, "B #S *scores"],
        point: Float[Tensor, "B S *point"],
        noise: Float[Tensor, "B S *scores"],
    ) -> Float[Tensor, "B S *scores"]:
        """Perturbed scores, up to a constant of each variable, given that this is the point of
        their best assignment: a function of the scores, with fresh noise as `noise` gives it
        (Tucker et al. 2017, appendix C)."""

    @abstractmethod
    def noise_given(
        self,
        scores: Float[Tensor, "B #S *scores"],
        point: Float[Tensor, "B S *point"],
        perturbed: Float[Tensor, "B S *scores"],
    ) -> Float[Tensor, "B S *scores"]:
        """The noise for which `perturbed_given` gives these, whose best assignment has the
        point."""

    @abstractmethod
    def log_odds(
        self, scores: Float[Tensor, "B #S *scores"], point: Float[Tensor, "B S *point"]
    ) -> Float[Tensor, "B S *each"]:
        """Of the value that each variable has in the point, against its others."""

    @abstractmethod
    def gapped(
        self,
        scores: Float[Tensor, "B #S *scores"],
        point: Float[Tensor, "B S *point"],
        gap: Float[Tensor, "B S *each"] | float,
    ) -> Float[Tensor, "B S *scores"]:
        """Scores, up to a constant of each variable, with this point as that of their best
        assignment: the highest score becomes that of its value, and no other is nearer to it than
        the gap (Fan et al. 2022)."""

    @abstractmethod
    def log_relaxed(
        self,
        logits: Float[Tensor, "B S *scores"],
        scores: Float[Tensor, "B 1 *scores"],
        temperature: float,
    ) -> Float[Tensor, "B S"]:
        """Log-density of perturbed scores over the temperature, up to a constant of each variable,
        at these logits (Maddison et al. 2017, appendix C)."""
