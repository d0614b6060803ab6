"""Kumaraswamy variables: without atoms, or stretched beyond [0, 1] and clipped to it.

    s = (1 − (1 − u)^(1/b))^(1/a),   z = s,   or   clip((1 + 2γ) s − γ)

The score is log a, and b is a setting: at b = 1 and the score 0, s is uniform. A higher score is a
z nearer to 1.
"""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from estimators.base import Knob
from estimators.distributions.levels import Gumbel
from estimators.distributions.levels import Kumaraswamy as Law
from estimators.distributions.mixed_bits import KumaraswamyBits, MixedBits
from estimators.mixed.mixed import Mixed
from estimators.pathwise import PathwiseSettings
from estimators.registry import register
from estimators.searched import Range
from estimators.spaces import Bits


class KumaraswamySettings(PathwiseSettings, frozen=True):
    """Of both."""

    b: Annotated[float, Range(0.3, 3, log=True)] = Field(
        1.0, ge=0.1, le=5, description="the shape that the score does not give"
    )


@register
class Kumaraswamy(Mixed):
    """Against a uniform prior. Towards low scores its entropy falls like −1/a."""

    name = "kumaraswamy"
    citation = "Nalisnick & Smyth 2017"
    knobs = (Knob("b", (0.5, 1.0, 2.0)),)
    Settings = KumaraswamySettings

    settings: KumaraswamySettings

    def distribution(self, scores: Float[Tensor, "B D"]) -> MixedBits:
        assert isinstance(self.space, Bits)
        return KumaraswamyBits(self.space, scores, self.settings.b)


@register
class HardKumaraswamy(Mixed):
    """P(0) = 1 − (1 − s₀^a)^b with s₀ = γ / (1 + 2γ), and P(1) = (1 − (1 − s₀)^a)^b."""

    name = "hard-kuma"
    citation = "Bastings et al. 2019"
    knobs = (Knob("b", (0.5, 1.0, 2.0)),)

    class Settings(KumaraswamySettings, frozen=True):
        stretch: Annotated[float, Range(0.02, 0.5, log=True)] = Field(
            0.1, ge=1e-3, le=10, description="γ, how far beyond 0 and 1 it is stretched"
        )

    settings: Settings

    def distribution(self, scores: Float[Tensor, "B D"]) -> MixedBits:
        assert isinstance(self.space, Bits)
        return MixedBits(self.space, scores, Law(self.settings.b), Gumbel(self.settings.stretch))
