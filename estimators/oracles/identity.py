"""The oracle taken for the identity, of scores without what its answer does not depend on."""

from typing import Annotated, Literal, Self

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from estimators.base import Estimate, Evaluated, Proposal
from estimators.oracles.through import ThroughOracle, slopes_at
from estimators.registry import register
from estimators.sampler import Sampler
from estimators.searched import SAMPLES
from estimators.spaces.distribution import Distribution
from estimators.spaces.forbidden import marked


@register
class Identity(ThroughOracle):
    """∂⟨g, v⟩/∂θ of v = P(θ + ε) / ‖P(θ + ε)‖, with g the slope at MAP(θ + ε), which is MAP(v).

    P takes off what makes no difference between assignments, and the norm is that of a row, as of
    one bit by itself nothing would be left. Along neither does the answer change, and scores that
    were moved so would drift: what is left is (P g − ⟨g, v⟩ v) / ‖P(θ + ε)‖. ε is the noise of the
    space, and z a sample of q, or of perturb-and-MAP where that is not one; or there is none, and z
    is the mode.
    """

    name = "identity"
    citation = "Sahoo et al. 2023"

    class Settings(BaseModel, extra="forbid", frozen=True):
        samples: Annotated[int, SAMPLES] = Field(1, ge=1, description="samples of z for each row")
        noise: Literal["space", "none"] = Field(
            "space", description="of the scores: that of the space, or none"
        )

        @model_validator(mode="after")
        def _differ(self) -> Self:
            if self.noise == "none" and self.samples > 1:
                raise ValueError("without noise all samples are alike: take one")
            return self

    settings: Settings

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        none = self.settings.noise == "none"
        perturbed = q.scores.detach()[:, None] if none else self.noisy(q, sampler).detach()
        return self.proposal(self.vertex(perturbed), perturbed=perturbed)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        g = slopes_at(proposal.extras["z"], evaluated)
        scores = self.space.centred(proposal.extras["perturbed"])
        square = _inner(scores, scores)
        square = torch.where(square > 0, square, 1)  # at no scores the slope is as it is
        across = (
            self.space.centred(marked(g, q.scores.detach()[:, None]))
            - _inner(g, scores) / square * scores
        )
        return self.estimate(q, evaluated, (across / square.sqrt()).mean(dim=1))


def _inner(
    one: Float[Tensor, "B S *point"], other: Float[Tensor, "B S *point"]
) -> Float[Tensor, "B S *ones"]:
    """Inner products of what each sample has, that multiply it."""
    product = (one * other).flatten(2).sum(dim=2)
    return product.view(*product.shape, *[1] * (one.dim() - 2))
