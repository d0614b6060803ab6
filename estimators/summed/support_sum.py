"""Exact sums over the support: dense (softmax, independent bits) and sparsemax.

    E_q[f] = Σ_{z ∈ supp q} q(z) f(z)

The sum has no variance. What a sparse q saves is decoder calls: it evaluates its support only.
"""

from typing import ClassVar

from pydantic import BaseModel
from torch import Tensor

from estimators.base import Bias, Estimate, Estimator, Latent, Proposal
from estimators.distributions.base import Distribution, SparseBits, SparsemaxCategorical
from estimators.mappings import topk_sparsemax
from estimators.registry import register
from estimators.sampler import Sampler

MAX_SUMMED = 256
"""Most assignments a row that a sum over all of them is run for."""


class SupportSum(Estimator):
    """Sums over the support of its distribution; subclasses say which distribution."""

    bias: ClassVar[Bias] = "exact"

    def propose(self, q: Distribution, features: Tensor, sampler: Sampler) -> Proposal:
        z, row, probability = q.support
        return Proposal(z, row, decoder_weight=probability.detach())

    def combine(self, q: Distribution, proposal: Proposal, costs: Tensor) -> Estimate:
        terms = q.support.probability * costs
        value = terms.new_zeros(len(q.scores)).index_add(0, proposal.row, terms)
        unsolved = {} if q.unsolved is None else {"unsolved": q.unsolved.to(costs.dtype).mean()}
        return Estimate(objective=value.detach(), surrogate=value, diagnostics=unsolved)


class EnumeratedSum(SupportSum):
    """A sum that needs every assignment, so that the latent variable must be small."""

    @classmethod
    def refusal(cls, latent: Latent, settings: BaseModel) -> str | None:
        if latent.family == "bits" and 2**latent.size > MAX_SUMMED:
            return f"{cls.name} needs all 2^{latent.size} bit-vectors; at most {MAX_SUMMED} are run"
        return super().refusal(latent, settings)

    @property
    def calls_per_row(self) -> int:
        return self.latent.size if self.latent.family == "categorical" else 2**self.latent.size


@register
class Dense(EnumeratedSum):
    """The sum over every assignment, under softmax or independent bits."""

    name = "dense"
    citation = "exact enumeration"


@register
class Sparsemax(EnumeratedSum):
    """The sum over the support of sparsemax; for bits, of sparsemax over all bit-vectors."""

    name = "sparsemax"
    citation = "Martins & Astudillo 2016; Correia et al. 2020"

    def distribution(self, scores: Tensor) -> Distribution:
        if self.latent.family == "categorical":
            return SparsemaxCategorical(scores)
        vertices, probabilities, _ = topk_sparsemax(scores, 2**self.latent.size)
        return SparseBits(scores, vertices, probabilities)
