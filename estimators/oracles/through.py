"""What estimators through an oracle have in common: points with slopes, and a gradient from them.

The rules that make a gradient of a slope g are not linear in g, and their step sizes go with its
size: here it is ∂f/∂point at one assignment, in nats. Published step sizes are for the slope of a
mean over a batch, and are larger by as much as that has rows.
"""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from estimators.base import Bias, Estimate, Estimator, Evaluated, Proposal, surrogate_of
from estimators.sampler import Sampler
from estimators.spaces.distribution import Distribution


class ThroughOracle(Estimator):
    """The decoder sees S points of each row, with the same weight, and gives their slopes."""

    bias: ClassVar[Bias] = "biased"
    takes_slopes = True

    @property
    def calls_per_row(self) -> int:
        """S."""
        return 1

    def noisy(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *scores"]:
        """θ + ε with the noise of the space, and the scores' graph: its best assignment is a sample
        of q, or, as the space says, of perturb-and-MAP."""
        return q.scores[:, None] + self.space.noise(q.scores, sampler, self.calls_per_row)

    def vertex(self, scores: Float[Tensor, "B S *scores"]) -> Float[Tensor, "B S *point"]:
        """The point of the best assignment."""
        return self.space.point(self.space.best(scores), scores.dtype)

    def proposal(self, point: Float[Tensor, "B S *point"], **extras: Tensor) -> Proposal:
        weight = point.new_full(point.shape[:2], 1 / point.shape[1])
        return Proposal.rectangular(point, weight, slopes=True, **extras)

    def estimate(
        self,
        q: Distribution,
        evaluated: Evaluated,
        gradient: Float[Tensor, "B *scores"],
        **diagnostics: Float[Tensor, ""],
    ) -> Estimate:
        return Estimate(
            objective=evaluated.costs.view(len(gradient), -1).mean(dim=1),
            surrogate=surrogate_of(gradient, q.scores),
            diagnostics=diagnostics,
        )


def slopes_at(
    point: Float[Tensor, "B S *point"], evaluated: Evaluated
) -> Float[Tensor, "B S *point"]:
    """g, at all points of a proposal."""
    assert evaluated.slopes is not None
    return evaluated.slopes.view_as(point)
