"""Polynomial programming: L variables of two categories, each with the same small preference.

    f(z) = mean over l of |z_l − 0.45|^p,   z_l ∈ {0, 1} is the first coordinate of variable l

(Liu et al. 2023, section 6.1). The optimum, the second category throughout, costs 0.45^p, against
0.55^p of the first: 0.3019, 0.2025 and 0.0911 for p = 1.5, 2 and 3. The logits are the model; they
start near zero, and all rows of a batch share them. A variable has two logits, of which Adam moves
both, as published: as a bit's log-odds it would learn at half the rate.
"""

import torch
from jaxtyping import Float, Int, Shaped
from pydantic import Field
from torch import Tensor

from estimators.spaces import Categoricals
from estimators.spaces.distribution import FiniteDistribution
from tasks.base import Context
from tasks.data.base import Dataset
from tasks.data_free import DataFree, DataFreeSettings
from tasks.examples import Example, Look, histogram
from tasks.registry import register
from tasks.streams import Streams

TARGET = 0.45

START = 0.01
"""Logits start uniformly between minus this and this."""


@register
class Polynomial(DataFree):
    """Shared logits of binary variables; reports the expected cost."""

    name = "polynomial"
    space_type = Categoricals
    citation = "Liu et al. 2023, section 6.1"

    class Settings(DataFreeSettings, frozen=True):
        variables: int = Field(128, ge=1, le=1024, description="L, the number of variables")
        power: float = Field(2.0, ge=1, le=10, description="p, the exponent; published: 1.5, 2, 3")

    def __init__(self, data: Dataset, settings: Settings, batch_size: int) -> None:
        scores = torch.empty(settings.variables, 2).uniform_(-START, START)
        super().__init__(data, settings, batch_size, scores)
        self.space = Categoricals(settings.variables, 2)
        self.power = settings.power
        self.activation_size = 2 * settings.variables

    def cost(
        self, context: Context, z: Shaped[Tensor, "N *z"], row: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        first = self.space.point(z, self.scores.dtype)[..., 0]
        return (first - TARGET).abs().pow(self.power).mean(dim=1)

    def exact_cost(self, context: Context, q: FiniteDistribution) -> Float[Tensor, " B"]:
        """The cost of assignments is linear in each one-hot: the marginals say all."""
        second, first = TARGET**self.power, (1 - TARGET) ** self.power
        return (second + (first - second) * q.marginals()[..., 0]).mean(dim=1)

    def examples(self, look: Look, streams: Streams) -> dict[str, Example]:
        second = look(self.scores[None], 1).z.to(self.scores.dtype).mean()
        share = torch.stack([1 - second, second])
        return {"mode": histogram("variables of the mode that are in each category", share)}
