"""What a distribution q(z | x) over a latent variable has to give, one for every row of a batch.

An estimator names the distribution that it trains; entropy, ELBO and every metric come from that
object, so that nothing is computed under another q. Throughout, B is the number of rows and S of
samples a row; an assignment z, a point and the scores have the shapes that their space says.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from estimators.mappings.finite import check_floating
from estimators.sampler import Sampler


class Support(NamedTuple):
    """Every assignment with positive probability, of every row, as one flat list."""

    z: Shaped[Tensor, "N *z"]
    row: Int[Tensor, " N"]
    """The row that each belongs to, ascending."""
    probability: Float[Tensor, " N"]
    """Differentiable in the scores."""


class Distribution(ABC):
    """q(z | x) for each of B rows: all that an estimator and an evaluation may ask of any q.

    Its z are assignments, or, of a mixed variable, points with atoms at these.

    Args:
        scores: that it came from.
        log_volume: log of the total measure of what z ranges over, the largest entropy that there
            can be, in nats: under the prior that has it, KL = log_volume − entropy.
    Raises:
        TypeError: the scores are no floating-point numbers.
    """

    unsolved: Bool[Tensor, " B"] | None = None
    """Rows where an iterative mapping stopped short of its tolerance; None where q does not come
    from one."""

    def __init__(self, scores: Float[Tensor, "B *scores"], log_volume: float) -> None:
        check_floating(scores)
        self.scores = scores
        self.log_volume = log_volume

    @abstractmethod
    def sample(self, sampler: Sampler, samples: int) -> Shaped[Tensor, "B {samples} *z"]:
        """Independent assignments."""

    @abstractmethod
    def log_prob(self, z: Shaped[Tensor, "B S *z"]) -> Float[Tensor, "B S"]:
        """log q in nats; −inf off the support. Of a mixed variable, log-density on the faces."""

    @abstractmethod
    def entropy(self) -> Float[Tensor, " B"]:
        """Entropy in nats, differentiable in the scores."""

    @abstractmethod
    def mode(self) -> Shaped[Tensor, "B *z"]:
        """The likeliest assignment."""

    def label_loss(self, target: Int[Tensor, "B *z"]) -> Float[Tensor, " B"]:
        """The loss on known assignments that belongs to this q, in nats: −log q(target)."""
        return -self.log_prob(target[:, None]).squeeze(1)


class FiniteDistribution(Distribution):
    """A q whose support can be listed, if it is not too large."""

    @property
    @abstractmethod
    def support(self) -> Support:
        """All assignments of positive probability in exact arithmetic, or fewer.

        One whose probability underflows to zero may be left out.

        Raises:
            ValueError: there are too many to list (see `support_sizes`).
        """

    @property
    @abstractmethod
    def support_sizes(self) -> Shaped[Tensor, " B"]:
        """How many assignments `support` would list for each row, without listing them."""

    @abstractmethod
    def marginals(self) -> Float[Tensor, "B *point"]:
        """E[point(z)]."""


class PlainDistribution(FiniteDistribution):
    """q(z) ∝ exp ⟨scores, point(z)⟩ over a space.

    `log_prob` takes points too, with ⟨scores, point⟩ − log-partition between those of assignments.
    """

    @abstractmethod
    def joint(self) -> Float[Tensor, "B M"]:
        """Probabilities of every assignment, in the order that the space lists them.

        Raises:
            ValueError: there are too many to list.
        """
