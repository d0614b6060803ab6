"""Spike-and-exponential: the smoothing of bits of the discrete VAE.

z = 0 where the bit is off;   density β e^(βz) / (e^β − 1) on (0, 1) where it is on
"""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from estimators.base import Knob
from estimators.distributions.mixed_bits import SpikeExponentialBits
from estimators.mixed.mixed import Mixed
from estimators.pathwise import PathwiseSettings
from estimators.registry import register
from estimators.searched import Range
from estimators.spaces import Bits


@register
class SpikeExponential(Mixed):
    """The score is the log-odds of the bit. The prior's uniform bits are smoothed alike, so that
    the KL is that of the bits themselves."""

    name = "spike-exponential"
    citation = "Rolfe 2017"
    knobs = (Knob("sharpness", (1.0, 3.0, 10.0)),)

    class Settings(PathwiseSettings, frozen=True):
        sharpness: Annotated[float, Range(0.5, 20, log=True)] = Field(
            3.0, ge=0.01, le=50, description="β: with more of it, z of a bit that is on is near 1"
        )

    settings: Settings

    def distribution(self, scores: Float[Tensor, "B D"]) -> SpikeExponentialBits:
        assert isinstance(self.space, Bits)
        return SpikeExponentialBits(self.space, scores, self.settings.sharpness)
