"""Score-function estimators of the bound on K samples that importance weights tighten.

    L = log (1/K) Σ_k w_k,   w_k = exp −(f(z_k) + λ log q(z_k)),   z_k ~ q
    ∇E[L] = E[Σ_k (L − L₋ₖ) ∇log q(z_k) + Σ_k w̃_k ∇log w_k],   w̃_k = w_k / Σ_j w_j

(Burda et al. 2016; Mnih & Rezende 2016), for any L₋ₖ that does not depend on z_k. The objective is
−E[L], which is the ELBO's loss at K = 1; costs that are all the same have no gradient. The second
sum reaches the decoder, and q by its log q, through the weights w̃, which are the decoder's.
"""

import math
from abc import abstractmethod
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import Tensor

from estimators.base import Bias, Estimate, Estimator, Evaluated, Objective, Proposal
from estimators.registry import register
from estimators.sampler import Sampler
from estimators.searched import Choices, Range
from estimators.spaces.distribution import Distribution


class MultiSample(Estimator):
    """A subclass says what stands in for a sample in its own baseline."""

    bias: ClassVar[Bias] = "unbiased"
    objective: ClassVar[Objective] = "multi-sample"

    class Settings(BaseModel, extra="forbid", frozen=True):
        samples: Annotated[int, Range(2, 16, log=True, costs=True)] = Field(
            4, ge=2, description="K, samples of z for each row"
        )

    settings: Settings

    @property
    def calls_per_row(self) -> int:
        return self.settings.samples

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        z = q.sample(sampler, self.settings.samples)
        return replace(Proposal.rectangular(z, q.scores.new_ones(z.shape[:2])), decoder_weight=None)

    @abstractmethod
    def stand_in(self, log_w: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """log of the weight that takes the place of each, from those of the others."""

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        log_w = -evaluated.costs.view(-1, self.settings.samples)
        whole = log_w.logsumexp(dim=1)
        own = torch.eye(log_w.shape[1], dtype=torch.bool, device=log_w.device)
        others = torch.where(own, self.stand_in(log_w)[:, :, None], log_w[:, None])
        signal = whole[:, None] - others.logsumexp(dim=2)
        return Estimate(
            objective=math.log(log_w.shape[1]) - whole,
            surrogate=-(signal * q.log_prob(proposal.extras["z"])).sum(dim=1),
            decoder_weight=log_w.softmax(dim=1).flatten(),
        )


def of_the_others(log_w: Float[Tensor, "B K"]) -> Float[Tensor, "B K K"]:
    """Row k has the log weights of all but k, and −∞."""
    own = torch.eye(log_w.shape[1], dtype=torch.bool, device=log_w.device)
    return log_w[:, None].masked_fill(own, -torch.inf)


@register
class VIMCO(MultiSample):
    """A mean of the other weights stands in for a sample's own."""

    name = "vimco"
    citation = "Mnih & Rezende 2016"

    class Settings(MultiSample.Settings, frozen=True):
        mean: Annotated[Literal["geometric", "arithmetic"], Choices()] = Field(
            "geometric", description="of the other weights"
        )

    settings: Settings

    def stand_in(self, log_w: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        others = log_w.shape[1] - 1
        if self.settings.mean == "geometric":
            return (log_w.sum(dim=1, keepdim=True) - log_w) / others
        return of_the_others(log_w).logsumexp(dim=2) - math.log(others)


@register
class OVIS(MultiSample):
    """Nothing does: the signal is −log(1 − w̃_k), the best baseline where K is large (γ = 0)."""

    name = "ovis"
    citation = "Liévin et al. 2020"

    def stand_in(self, log_w: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        return torch.full_like(log_w, -torch.inf)
