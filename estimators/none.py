"""The floor: no gradient for the latent variable at all."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from estimators.base import Bias, Estimate, Estimator, Evaluated, Proposal
from estimators.registry import register
from estimators.sampler import Sampler
from estimators.spaces.distribution import Distribution


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

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        nothing = torch.empty(0, dtype=torch.int64, device=q.scores.device)
        z = q.scores.new_empty(0, *self.space.point_shape)
        return Proposal(z, nothing, decoder_weight=q.scores.new_empty(0))

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        return Estimate(objective=q.scores.new_zeros(len(q.scores)), surrogate=None)
