"""Gaussian scores: sparsemax of them, which has atoms, or their softmax, which has none.

    z = sparsemax(scores + σ N),   or   softmax(scores + σ N)

A bit is the first of two categories with the scores (θ, 0): sparsemax is then a Gaussian with the
standard deviation σ / √2 clipped to [0, 1], and softmax a logistic-normal variable.
"""

from dataclasses import replace
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from estimators.base import Estimate, Evaluated, Knob, Proposal
from estimators.distributions.gaussian_sparsemax import GaussianSparsemax as SparsemaxSimplex
from estimators.distributions.logistic_normal import LogisticNormal as LogisticNormalSimplex
from estimators.distributions.mixed import MixedDistribution
from estimators.distributions.mixed_bits import ClippedGaussianBits, LogisticNormalBits
from estimators.mixed.mixed import Mixed
from estimators.pathwise import PathwiseSettings
from estimators.registry import register
from estimators.sampler import Sampler
from estimators.searched import Range
from estimators.spaces import Bits, Categoricals
from estimators.spaces.distribution import Distribution


class GaussianSettings(PathwiseSettings, frozen=True):
    """Of both."""

    scale: Annotated[float, Range(0.2, 3, log=True)] = Field(
        1.0, ge=0.01, le=10, description="σ, standard deviation of the noise of each score"
    )


@register
class GaussianSparsemax(Mixed):
    """The entropy of bits is in closed form; that of categories is estimated from samples of its
    own, with an unbiased gradient."""

    name = "gaussian-sparsemax"
    citation = "Farinhas et al. 2022"
    spaces = (Bits, Categoricals)
    knobs = (Knob("scale", (0.5, 1.0, 2.0)),)

    class Settings(GaussianSettings, frozen=True):
        entropy_samples: int = Field(
            2, ge=2, description="samples of z that the entropy of categories is estimated from"
        )

    settings: Settings

    def distribution(self, scores: Float[Tensor, "B *scores"]) -> MixedDistribution:
        s = self.settings
        if isinstance(self.space, Bits):
            return ClippedGaussianBits(self.space, scores, s.scale)
        assert isinstance(self.space, Categoricals)
        return SparsemaxSimplex(self.space, scores, s.scale, s.entropy_samples)

    def propose(
        self, q: Distribution, features: Float[Tensor, "B F"], sampler: Sampler
    ) -> Proposal:
        proposal = super().propose(q, features, sampler)
        if isinstance(q, SparsemaxSimplex):
            with torch.no_grad():
                proposal.extras["of_entropy"] = q.sample(sampler, self.settings.entropy_samples)
        return proposal

    def combine(self, q: Distribution, proposal: Proposal, evaluated: Evaluated) -> Estimate:
        estimate = super().combine(q, proposal, evaluated)
        if not isinstance(q, SparsemaxSimplex):
            return estimate
        return replace(estimate, entropy=q.entropy_from(proposal.extras["of_entropy"]))


@register
class LogisticNormal(Mixed):
    """Against a prior that is uniform on what lies between the assignments. Its entropy is by
    quadrature."""

    name = "logistic-normal"
    citation = "Aitchison & Shen 1980"
    spaces = (Bits, Categoricals)
    knobs = (Knob("scale", (0.5, 1.0, 2.0)),)
    Settings = GaussianSettings

    settings: GaussianSettings

    def distribution(self, scores: Float[Tensor, "B *scores"]) -> MixedDistribution:
        if isinstance(self.space, Bits):
            return LogisticNormalBits(self.space, scores, self.settings.scale)
        assert isinstance(self.space, Categoricals)
        return LogisticNormalSimplex(self.space, scores, self.settings.scale)
