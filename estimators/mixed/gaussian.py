"""Gaussian scores: sparsemax of them, which has atoms, or their softmax, which has none.

    z = sparsemax(scores + σ N),   or   softmax(scores + σ N)

A bit is the first of two categories with the scores (θ, 0): sparsemax is then a Gaussian with the
standard deviation σ / √2 clipped to [0, 1], and softmax a logistic-normal variable.
"""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from estimators.base import Knob
from estimators.distributions.mixed import MixedDistribution
from estimators.distributions.mixed_bits import ClippedGaussianBits, LogisticNormalBits
from estimators.mixed.mixed import Mixed
from estimators.pathwise import PathwiseSettings
from estimators.registry import register
from estimators.searched import Range
from estimators.spaces import Bits


class GaussianSettings(PathwiseSettings, frozen=True):
    """Of both."""

    scale: Annotated[float, Range(0.2, 3, log=True)] = Field(
        1.0, ge=0.01, le=10, description="σ, standard deviation of the noise of each score"
    )


@register
class GaussianSparsemax(Mixed):
    """With entropy and density in closed form for bits."""

    name = "gaussian-sparsemax"
    citation = "Farinhas et al. 2022"
    knobs = (Knob("scale", (0.5, 1.0, 2.0)),)
    Settings = GaussianSettings

    settings: GaussianSettings

    def distribution(self, scores: Float[Tensor, "B *scores"]) -> MixedDistribution:
        assert isinstance(self.space, Bits)
        return ClippedGaussianBits(self.space, scores, self.settings.scale)


@register
class LogisticNormal(Mixed):
    """Against a prior that is uniform on what lies between the assignments."""

    name = "logistic-normal"
    citation = "Farinhas et al. 2022"
    knobs = (Knob("scale", (0.5, 1.0, 2.0)),)
    Settings = GaussianSettings

    settings: GaussianSettings

    def distribution(self, scores: Float[Tensor, "B *scores"]) -> MixedDistribution:
        assert isinstance(self.space, Bits)
        return LogisticNormalBits(self.space, scores, self.settings.scale)
