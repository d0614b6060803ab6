"""Concrete: Gumbel-Softmax with the KL between relaxed distributions for that of the discrete ones.

The bound is that of a model whose latent variable is the relaxed sample y ~ q_τ, under a relaxed
uniform prior p (Maddison et al. 2017): log p(y) − log q_τ(y) stands for H(q) − log |Z|. Its mean is
lower, as y says more than its best assignment, and has no lower limit.
"""

from dataclasses import replace
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from estimators.base import Estimate, Evaluated, Knob, Proposal
from estimators.registry import register
from estimators.relaxed.gumbel import GumbelSoftmax
from estimators.sampler import Sampler
from estimators.searched import Range
from estimators.spaces.base import Factorised
from estimators.spaces.distribution import Distribution


@register
class Concrete(GumbelSoftmax):
    """Densities are those of (scores + G) / τ, of which y is the `soft`: y itself underflows."""

    name = "concrete"
    citation = "Maddison et al. 2017"
    knobs = (*GumbelSoftmax.knobs, Knob("prior_temperature", (0.2, 0.5, 1.0)))

    class Settings(GumbelSoftmax.Settings, frozen=True):
        prior_temperature: Annotated[float | None, Range(0.1, 3, log=True)] = Field(
            None, gt=0, description="of the relaxed uniform prior; by default that of the sample"
        )

    settings: Settings

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        logits = self.noisy(q, sampler)
        weight = q.scores.new_full(logits.shape[:2], 1 / self.settings.samples)
        return Proposal.rectangular(self.space.soft(logits), weight, slopes=True, logits=logits)

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert isinstance(self.space, Factorised)
        logits, scores = proposal.extras["logits"], q.scores[:, None]
        prior = self.settings.prior_temperature or self.temperature
        log_q = self.space.log_relaxed(logits, scores, self.temperature)
        log_p = self.space.log_relaxed(logits, torch.zeros_like(scores), prior)
        entropy = q.log_volume + (log_p - log_q).mean(dim=1)
        return replace(super().combine(q, proposal, evaluated), entropy=entropy)
