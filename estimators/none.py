"""The floor: no gradient for the latent variable at all."""

from typing import ClassVar

import torch
from torch import Tensor

from estimators.base import Bias, Estimate, Estimator, Proposal
from estimators.distributions.base import Distribution
from estimators.registry import register
from estimators.sampler import Sampler


@register
class NoGradient(Estimator):
    """Evaluates nothing and trains nothing.

    What is left is the floor that every other row is read against: the labelled part alone
    where a task has labels, the untrained model where it has none.
    """

    name = "none"
    citation = "the floor: labelled data alone, or an untrained model"
    bias: ClassVar[Bias] = "none"
    trains_latent = False

    @property
    def calls_per_row(self) -> int:
        return 0

    def propose(self, q: Distribution, features: Tensor, sampler: Sampler) -> Proposal:
        nothing = torch.empty(0, dtype=torch.int64, device=q.scores.device)
        z = nothing if self.latent.family == "categorical" else q.scores[:0].detach()
        return Proposal(z, nothing, decoder_weight=q.scores.new_empty(0))

    def combine(self, q: Distribution, proposal: Proposal, costs: Tensor) -> Estimate:
        return Estimate(objective=q.scores.new_zeros(len(q.scores)), surrogate=None)
