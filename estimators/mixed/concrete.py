"""Hard concrete: a binary Concrete variable that is stretched beyond [0, 1], and clipped to it.

    z = clip((1 + 2γ) σ((score + L) / τ) − γ),   L logistic

It is 0 with the probability σ(−τ log((1 + γ) / γ) − score), and 1 with that at −score. Entropy
and density are on the sum of {0}, {1} and (0, 1); the public code has Monte Carlo estimates with
an ε in each logarithm.
"""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from estimators.base import Knob
from estimators.distributions.levels import Logistic, Sigmoid
from estimators.distributions.mixed_bits import MixedBits
from estimators.mixed.mixed import Mixed
from estimators.pathwise import PathwiseSettings
from estimators.registry import register
from estimators.searched import Range
from estimators.spaces import Bits


@register
class HardConcrete(Mixed):
    """The score is log α of the public code, the log-odds of z > ½."""

    name = "hard-concrete"
    citation = "Louizos et al. 2018"
    knobs = (Knob("temperature", (0.3, 2 / 3, 1.5)),)

    class Settings(PathwiseSettings, frozen=True):
        temperature: Annotated[float, Range(0.2, 2, log=True)] = Field(
            2 / 3, ge=0.01, le=10, description="τ"
        )
        stretch: Annotated[float, Range(0.02, 0.5, log=True)] = Field(
            0.1, ge=1e-3, le=10, description="γ, how far beyond 0 and 1 it is stretched"
        )

    settings: Settings

    def distribution(self, scores: Float[Tensor, "B D"]) -> MixedBits:
        assert isinstance(self.space, Bits)
        link = Sigmoid(self.settings.stretch, self.settings.temperature)
        return MixedBits(self.space, scores, Logistic(), link)
