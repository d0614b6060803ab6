"""Mixed Dirichlet: the score function for a face of the simplex, slopes for the point on it.

    (f(z) − b) ∇ log P(face)  +  ⟨∂f/∂z, ∂z/∂scores on its face⟩

The baseline b is the mean cost of the other samples, which leaves the estimate unbiased: the
published code takes the cost of the likeliest face, for one more decoder call.
"""

from dataclasses import replace
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from estimators.base import Estimate, Evaluated, Knob, Proposal
from estimators.distributions.mixed_dirichlet import MixedDirichlet as Faces
from estimators.mixed.mixed import Mixed
from estimators.pathwise import PathwiseSettings
from estimators.registry import register
from estimators.searched import Range
from estimators.spaces import Categoricals
from estimators.spaces.distribution import Distribution


@register
class MixedDirichlet(Mixed):
    """The score is the log-odds that a category takes part; the more of it, the more of the face's
    mass the category gets. Its entropy is by quadrature."""

    name = "mixed-dirichlet"
    citation = "Farinhas et al. 2022"
    spaces = (Categoricals,)
    knobs = (Knob("concentration", (0.3, 1.0, 3.0)),)

    class Settings(PathwiseSettings, frozen=True):
        samples: Annotated[int, Range(2, 16, log=True, costs=True)] = Field(
            2, ge=2, description="samples of z for each row"
        )
        concentration: Annotated[float, Range(0.1, 10, log=True)] = Field(
            1.0, ge=0.01, le=20, description="c, of the Dirichlet on a face, 1 + c σ(score)"
        )

    settings: Settings

    def distribution(self, scores: Float[Tensor, "B V C"]) -> Faces:
        assert isinstance(self.space, Categoricals)
        return Faces(self.space, scores, self.settings.concentration)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert isinstance(q, Faces)
        estimate = super().combine(q, proposal, evaluated)
        assert estimate.surrogate is not None
        z = proposal.extras["z"].detach()
        costs = evaluated.costs.view(z.shape[:2])
        others = (costs.sum(dim=1, keepdim=True) - costs) / (z.shape[1] - 1)
        of_face = ((costs - others) * q.log_face(z)).mean(dim=1)
        return replace(estimate, surrogate=estimate.surrogate + of_face)
