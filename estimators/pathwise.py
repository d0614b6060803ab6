"""What estimators have in common that send the gradient of the cost through a point.

    ⟨∂f/∂point, ∂path/∂scores⟩

The decoder sees the point, which must be allowed to lie between the vertices unless it is one; the
path is what is differentiated in its place, or the point itself.
"""

from abc import abstractmethod
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import Tensor

from estimators.base import Bias, Estimate, Estimator, Evaluated, Proposal
from estimators.sampler import Sampler
from estimators.searched import SAMPLES
from estimators.spaces.distribution import Distribution


def straight_through(value: Tensor, path: Tensor) -> Tensor:
    """The value, to the bit, with the gradient of the path."""
    return value + (path - path.detach())


class PathwiseSettings(BaseModel, extra="forbid", frozen=True):
    """A subclass adds its own."""

    samples: Annotated[int, SAMPLES] = Field(1, ge=1, description="samples of z for each row")


class Pathwise(Estimator):
    """The mean over S points; a subclass says which, and what their gradient is."""

    bias: ClassVar[Bias] = "biased"
    takes_slopes = True
    Settings: ClassVar[type[BaseModel]] = PathwiseSettings

    settings: PathwiseSettings

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples

    @abstractmethod
    def relax(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *point"]:
        """Points for the decoder, with the scores' gradient."""

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        z = self.relax(q, sampler)
        weight = q.scores.new_full(z.shape[:2], 1 / z.shape[1])
        return Proposal.rectangular(z, weight, slopes=True)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert evaluated.slopes is not None
        z = proposal.extras["z"]
        through = torch.linalg.vecdot(evaluated.slopes.view(len(z), -1), z.flatten(1))
        return Estimate(
            objective=evaluated.costs.view(len(z), -1).mean(dim=1), surrogate=through / z.shape[1]
        )
