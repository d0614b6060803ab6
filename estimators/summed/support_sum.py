"""Exact sums over the support: dense (the plain q) and sparsemax.

    E_q[f] = Σ_{z ∈ supp q} q(z) f(z)

The sum has no variance. What a sparse q saves is decoder calls: it evaluates its support only.
"""

from typing import ClassVar

from jaxtyping import Float
from pydantic import BaseModel
from torch import Tensor

from estimators.base import Bias, Estimate, Estimator, Evaluated, Proposal
from estimators.distributions.sparse import SparseDistribution
from estimators.registry import register
from estimators.sampler import Sampler
from estimators.spaces.base import Ranked, Space
from estimators.spaces.distribution import Distribution, FiniteDistribution

MAX_SUMMED = 256
"""Most assignments a row that a sum over all of them is run for, where they are not the categories
of a single variable."""


class SupportSum(Estimator):
    """Sums over the support of its distribution; subclasses say which distribution."""

    bias: ClassVar[Bias] = "exact"

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        assert isinstance(q, FiniteDistribution)
        z, row, probability = q.support
        return Proposal(z, row, decoder_weight=probability.detach())

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        assert isinstance(q, FiniteDistribution)
        probability, costs, row = q.support.probability, evaluated.costs, proposal.row
        nothing = costs.new_zeros(len(q.scores))
        value = nothing.index_add(0, row, probability.detach() * costs)
        # The level of a row's costs is no part of the gradient, but of what that loses to rounding.
        centred = probability * (costs - value[row])
        unsolved = {} if q.unsolved is None else {"unsolved": q.unsolved.to(costs.dtype).mean()}
        return Estimate(
            objective=value, surrogate=nothing.index_add(0, row, centred), diagnostics=unsolved
        )


class EnumeratedSum(SupportSum):
    """A sum that needs every assignment, so that the latent variable must be small."""

    @classmethod
    def refusal(cls, space: Space, settings: BaseModel) -> str | None:
        if space.count > MAX_SUMMED and not space.single:
            return f"{cls.name} needs every assignment of {space}; at most {MAX_SUMMED} are run"
        return super().refusal(space, settings)

    @property
    def calls_per_row(self) -> int:
        return self.space.count


@register
class Dense(EnumeratedSum):
    """The sum over every assignment, under softmax or independent bits."""

    name = "dense"
    citation = "exact enumeration"


@register
class Sparsemax(EnumeratedSum):
    """The sum over the support of sparsemax over every assignment."""

    name = "sparsemax"
    citation = "Martins & Astudillo 2016; Correia et al. 2020"
    spaces = (Ranked,)

    def distribution(self, scores: Float[Tensor, "B *scores"]) -> Distribution:
        assert isinstance(self.space, Ranked)
        listed, probabilities = self.space.topk_sparsemax(scores, self.space.count)
        return SparseDistribution(self.space, scores, listed, probabilities)
