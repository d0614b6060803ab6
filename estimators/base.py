"""The contract of an estimator: which assignments to evaluate, and what to make of their costs.

A training step wants the gradient of E_q[f(z)], where q is the distribution over the latent
variable z that a row's *scores* define and f is the *cost* of an assignment. An estimator
`propose`s assignments; the step evaluates their costs, and their slopes where it asks for them; the
estimator `combine`s these numbers into a surrogate. Only the step runs the decoder and its backward
passes, weighting each cost as the proposal says, so that no estimator can send the decoder a
gradient by accident.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import BaseModel
from torch import Tensor, nn

from estimators.sampler import Sampler
from estimators.spaces.base import Space
from estimators.spaces.distribution import Distribution

Bias = Literal["exact", "unbiased", "scaled", "biased", "none"]
"""Of the estimate for the scores, against the objective under the estimator's own q: "exact" has
no variance either; "scaled" is unbiased but for a positive factor; "none" gives no gradient."""

ExactFor = Literal["linear", "multilinear", "quadratic"]
"""A class of costs, as functions of the point: linear; multilinear in the variables' points, linear
in each; quadratic in all of them together."""

Objective = Literal["elbo", "multi-sample"]
"""What is descended: E_q[f] − λ H(q), or −E[log mean exp −(f + λ log q)] over several samples of z,
whose decoder weights come with the estimate; the step gives them to λ log q too."""


@dataclass(frozen=True)
class Proposal:
    """Assignments to evaluate: a flat list of N, several or none for each of B rows."""

    z: Shaped[Tensor, "N *z"]
    """Assignments, or points (N, *point) as floats: relaxed ones, or those of assignments."""
    row: Int[Tensor, " N"]
    """The row that each belongs to."""
    decoder_weight: Float[Tensor, " N"] | None
    """Weight of each cost in the gradient of the decoder. None where it depends on the costs;
    `combine` then returns it, and every cost's graph is kept until it has."""
    slopes: Bool[Tensor, " N"] | bool = False
    """Where the derivative of the cost is wanted: everywhere, nowhere, or at some. z are then
    points, and a gradient that they carry goes no further: see `Evaluated`."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """Whatever `combine` and `update` need to remember."""

    @classmethod
    def rectangular(
        cls,
        z: Shaped[Tensor, "B M *z"],
        weight: Float[Tensor, "B M"],
        slopes: Bool[Tensor, "B M"] | bool = False,
        **extras: Tensor,
    ) -> Self:
        """As many assignments for each row. The unflattened z is kept as the extra "z"."""
        row = torch.arange(len(z), device=z.device).repeat_interleave(z.shape[1])
        where = slopes.flatten() if isinstance(slopes, Tensor) else slopes
        return cls(z.flatten(0, 1), row, weight.flatten(), where, extras={"z": z, **extras})


class Evaluated(NamedTuple):
    """What the step found for a proposal: detached numbers."""

    costs: Float[Tensor, " N"]
    """f, in nats; with λ log q(z) added where the estimator says `log_q_in_costs`."""
    slopes: Float[Tensor, "M *point"] | None = None
    """∂f/∂point at those assignments that they were asked for, in their order, times no weight; of
    f + λ log q where that is in the costs."""


@dataclass(frozen=True)
class Estimate:
    """What the costs of a proposal amount to."""

    objective: Float[Tensor, " B"]
    """Detached: the estimate of E_q[f(z)], or of the mean of the costs with log q in them."""
    surrogate: Float[Tensor, " B"] | None
    """Its gradient in the scores is the estimate of E_q[f(z)]'s, times `scale`."""
    scale: Float[Tensor, ""] | float = 1.0
    """Positive, detached: the step multiplies the entropy's gradient in the scores by it too, so
    that a scaled estimate follows the same objective."""
    entropy: Float[Tensor, " B"] | None = None
    """What stands for H(q) in the objective, with the scores' graph; None for H(q) itself. None,
    too, where log q is in the costs."""
    decoder_weight: Float[Tensor, " N"] | None = None
    """Only where the proposal left it open."""
    own_loss: Float[Tensor, ""] | None = None
    """Trains the estimator's own parameters, and reaches nothing else."""
    diagnostics: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """To look at, such as a baseline's error, and for `update` to go by; their means over steps are
    stored."""


def surrogate_of(
    gradient: Float[Tensor, "B *scores"], scores: Float[Tensor, "B *scores"]
) -> Float[Tensor, " B"]:
    """A surrogate that has this gradient in the scores."""
    return (gradient.detach() * scores).flatten(1).sum(dim=1)


class NoSettings(BaseModel, extra="forbid", frozen=True):
    """An estimator with nothing to set."""


class Knob(NamedTuple):
    """A setting that trades what an estimate is worth for what it costs, apart from the number of
    `samples` or `pairs`."""

    setting: str
    values: tuple[float, ...]
    """Some that are worth comparing."""


class Estimator(nn.Module, ABC):
    """A gradient estimator, with its settings and its state (buffers and parameters).

    A subclass gives the class variables, `propose` and `combine`; one with state of its own
    gives `update` too. `combine` leaves the state as it is, so that the estimate of a step is
    a function of earlier steps alone.

    Args:
        space: of the latent variable.
        settings: checked.
        features: length of the input vector that baseline networks see.
    """

    name: ClassVar[str]
    citation: ClassVar[str]
    spaces: ClassVar[tuple[type[Space], ...]] = (Space,)
    """Those that it takes."""
    bias: ClassVar[Bias]
    objective: ClassVar[Objective] = "elbo"
    takes_slopes: ClassVar[bool] = False
    """It asks for slopes: the decoder must take points."""
    own_model: ClassVar[bool] = False
    """Its z are points between assignments too, of a model of their own: q has no list of them, and
    none of an assignment that is known."""
    trains_latent: ClassVar[bool] = True
    """False for the floor, which leaves the unsupervised objective out altogether."""
    Settings: ClassVar[type[BaseModel]] = NoSettings
    searched_training: ClassVar[frozenset[str]] = frozenset()
    """Settings of training that a search varies for this estimator, beside its own settings."""
    knobs: ClassVar[tuple[Knob, ...]] = ()

    def __init__(self, space: Space, settings: BaseModel, features: int = 0) -> None:
        super().__init__()
        self.space = space
        self.settings = settings
        self.features = features

    @classmethod
    def make(cls, space: Space, *, features: int = 0, **settings: object) -> Self:
        """An estimator from plain settings.

        Raises:
            pydantic.ValidationError: an unknown setting, or a value out of range.
        """
        return cls(space, cls.Settings(**settings), features)

    @classmethod
    def refusal(cls, space: Space, settings: BaseModel) -> str | None:
        """Why this estimator can't train such a latent variable, in a sentence; None if it can."""
        if not isinstance(space, cls.spaces):
            return f"{cls.name} takes {' or '.join(one.name for one in cls.spaces)} only"
        return None

    @property
    @abstractmethod
    def calls_per_row(self) -> int:
        """Decoder calls for a row: exact, or the most there can be."""

    @property
    def exact_for(self) -> ExactFor | None:
        """Costs for which a biased estimate has the right expectation, with these settings."""
        return None

    @property
    def log_q_in_costs(self) -> bool:
        """Whether the costs are to have λ log q(z) in them, in place of −λ H(q) beside them."""
        return self.objective == "multi-sample"

    def distribution(self, scores: Float[Tensor, "B *scores"]) -> Distribution:
        """The distribution q that this estimator trains."""
        return self.space.plain(scores)

    @abstractmethod
    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        """Assignments to evaluate.

        Args:
            q: what `distribution` returned, with the scores' graph.
            features: the inputs x, for baselines.
            sampler: all randomness comes from it.
        """

    @abstractmethod
    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        """The estimate from the costs and slopes of the proposal. Changes no state."""

    def update(self, proposal: Proposal, evaluated: Evaluated, estimate: Estimate) -> None:
        """Move the state on by a step, after its estimate, what `combine` gave, has been used."""
