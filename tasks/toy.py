"""The toy problem of the field: D bits that should all be off, and hardly gain by it.

    f(b) = mean over i of (b_i − t)²,   b ∈ {0, 1}^D

(Tucker et al. 2017, section 5.1: D = 1, t = 0.45; Grathwohl et al. 2018: t = 0.499). The optimum
is b = 0 and costs t², against (1 − t)² of a bit that is on: the closer t is to ½, the smaller is
the signal beside the noise. The scores are the model: there are no inputs, and a batch is rows of
the same problem. A relaxed b costs what the formula says, as published, which is no mean of hard
ones.
"""

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from estimators.spaces import Bits
from estimators.spaces.distribution import FiniteDistribution
from tasks.base import Context
from tasks.data.base import Dataset
from tasks.data_free import DataFree, DataFreeSettings
from tasks.examples import Example, Look, histogram
from tasks.registry import register
from tasks.streams import Streams


@register
class Toy(DataFree):
    """Shared scores of some bits; reports the expected cost."""

    name = "toy"
    space_type = Bits
    citation = "Tucker et al. 2017, section 5.1"

    class Settings(DataFreeSettings, frozen=True):
        bits: int = Field(1, ge=1, le=512, description="D, the number of bits")
        target: float = Field(0.45, ge=0, le=1, description="t, what each bit is to be near")
        initial: float = Field(0.0, description="log-odds of the bits at the start")

    def __init__(self, data: Dataset, settings: Settings, batch_size: int) -> None:
        scores = torch.full((settings.bits,), settings.initial)
        super().__init__(data, settings, batch_size, scores)
        self.space = Bits(settings.bits)
        self.target = settings.target
        self.activation_size = settings.bits

    def cost(
        self, context: Context, z: Float[Tensor, "N D"], row: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        return (z - self.target).square().mean(dim=1)

    def exact_cost(self, context: Context, q: FiniteDistribution) -> Float[Tensor, " B"]:
        """The cost of bits is linear in each of them: the marginals say all."""
        off, on = self.target**2, (1 - self.target) ** 2
        return (off + (on - off) * q.marginals()).mean(dim=1)

    def examples(self, look: Look, streams: Streams) -> dict[str, Example]:
        on = look(self.scores[None], 1).z.mean()
        return {
            "mode": histogram("bits of the mode that are off, and on", torch.stack([1 - on, on]))
        }
