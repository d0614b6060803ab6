"""The contract of an estimator: which assignments to evaluate, and what to make of their costs.

A training step wants the gradient of E_q[f(z)], where q is the distribution over the latent
variable z that a row's *scores* define and f is the *cost* of an assignment. An estimator
`propose`s assignments; the harness evaluates their costs, and counts them; the estimator
`combine`s the costs, which it sees detached, into a surrogate. Only the harness runs backward
passes, weighting each cost as the proposal says, so that no estimator can send the decoder a
gradient by accident.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from estimators.distributions.base import BernoulliBits, Categorical, Distribution
from estimators.sampler import Sampler

Family = Literal["categorical", "bits"]
Bias = Literal["exact", "unbiased", "scaled", "biased", "none"]
"""Of the estimate for the scores, against the objective under the estimator's own q: "exact" has
no variance either; "scaled" is unbiased but for a positive factor; "none" gives no gradient."""


class Latent(NamedTuple):
    """What an estimator may know of a task: the shape of its latent variable and of its inputs."""

    family: Family
    size: int
    """K categories or D bits."""
    features: int
    """Length of the input vector that baseline networks see."""


@dataclass(frozen=True)
class Proposal:
    """Assignments to evaluate: a flat list of N, several or none for each of B rows."""

    z: Tensor
    """(N,) indices, (N, D) bits, or relaxed points (N, K) or (N, D) with a gradient."""
    row: Tensor
    """(N,) int64: the row that each belongs to."""
    decoder_weight: Tensor | None
    """(N,): weight of each cost in the gradient of the decoder. None where it depends on the
    costs; `combine` then returns it, and every cost's graph is kept until it has."""
    pathwise_weight: Tensor | None = None
    """(N,): weight of each cost in the gradient that flows back through a relaxed z."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """Whatever `combine` and `update` need to remember."""

    @classmethod
    def rectangular(cls, z: Tensor, weight: Tensor, **extras: Tensor) -> Self:
        """As many assignments for each row: z (B, M, ...), decoder weights (B, M).

        The unflattened z is kept as the extra "z".
        """
        row = torch.arange(len(z), device=z.device).repeat_interleave(z.shape[1])
        return cls(z.flatten(0, 1), row, weight.flatten(), extras={"z": z, **extras})


@dataclass(frozen=True)
class Estimate:
    """What the costs of a proposal amount to."""

    objective: Tensor
    """(B,), detached: the estimate of E_q[f(z)]."""
    surrogate: Tensor | None
    """(B,): its gradient in the scores is the estimate of E_q[f(z)]'s, times `scale`; None where
    all of it flows through z."""
    scale: Tensor | float = 1.0
    """Positive, detached: the harness multiplies the entropy's gradient in the scores by it too, so
    that a scaled estimate follows the same objective."""
    decoder_weight: Tensor | None = None
    """(N,): only where the proposal left it open; it then has no `pathwise_weight`."""
    own_loss: Tensor | None = None
    """Scalar: trains the estimator's own parameters, by an optimizer of their own."""
    diagnostics: dict[str, Tensor] = field(default_factory=dict)
    """Named scalars to look at, such as a baseline's error; their means over steps are stored."""


class NoSettings(BaseModel, extra="forbid", frozen=True):
    """An estimator with nothing to set."""


class Knob(NamedTuple):
    """A setting that trades what an estimate is worth for what it costs, `samples` apart."""

    setting: str
    values: tuple[float, ...]
    """Some that are worth comparing."""


class Estimator(nn.Module, ABC):
    """A gradient estimator, with its settings and its state (buffers and parameters).

    A subclass gives the class variables, `propose` and `combine`; one with state of its own
    gives `update` too. `combine` leaves the state as it is, so that the estimate of a step is
    a function of earlier steps alone.
    """

    name: ClassVar[str]
    citation: ClassVar[str]
    families: ClassVar[frozenset[Family]] = frozenset({"categorical", "bits"})
    bias: ClassVar[Bias]
    relaxed: ClassVar[bool] = False
    """The decoder must accept relaxed assignments."""
    trains_latent: ClassVar[bool] = True
    """False for the floor, which leaves the unsupervised objective out altogether."""
    Settings: ClassVar[type[BaseModel]] = NoSettings
    searched_training: ClassVar[frozenset[str]] = frozenset()
    """Settings of training that a search varies for this estimator, beside its own settings."""
    knobs: ClassVar[tuple[Knob, ...]] = ()

    def __init__(self, latent: Latent, settings: BaseModel) -> None:
        super().__init__()
        self.latent = latent
        self.settings = settings

    @classmethod
    def make(cls, latent: Latent, **settings: object) -> Self:
        """An estimator from plain settings.

        Raises:
            pydantic.ValidationError: an unknown setting, or a value out of range.
        """
        return cls(latent, cls.Settings(**settings))

    @classmethod
    def refusal(cls, latent: Latent, settings: BaseModel) -> str | None:
        """Why this estimator can't train such a latent variable, in a sentence; None if it can."""
        if latent.family not in cls.families:
            return f"{cls.name} takes {' or '.join(sorted(cls.families))} latents only"
        return None

    @property
    @abstractmethod
    def calls_per_row(self) -> int:
        """Decoder calls for a row: exact, or the most there can be."""

    def distribution(self, scores: Tensor) -> Distribution:
        """The distribution q that this estimator trains, for scores (B, K) or (B, D)."""
        return Categorical(scores) if self.latent.family == "categorical" else BernoulliBits(scores)

    @abstractmethod
    def propose(self, q: Distribution, features: Tensor, sampler: Sampler) -> Proposal:
        """Assignments to evaluate.

        Args:
            q: what `distribution` returned, with the scores' graph.
            features: (B, F), the inputs x, for baselines.
            sampler: all randomness comes from it.
        """

    @abstractmethod
    def combine(self, q: Distribution, proposal: Proposal, costs: Tensor) -> Estimate:
        """The estimate from the detached costs (N,) of the proposal. Changes no state."""

    def update(self, proposal: Proposal, costs: Tensor) -> None:
        """Move the state on by a step, after its estimate has been used."""
