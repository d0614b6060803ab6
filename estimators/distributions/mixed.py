"""Mixed variables: a q over points that may have atoms at the assignments.

Their measure is the sum of those of all faces: it counts the vertices, and is the length, area, …
of faces beyond them (Farinhas et al. 2022). Densities, entropies and `log_volume` are of it.
"""

import math
from abc import abstractmethod
from functools import cache

from jaxtyping import Float, Shaped
from torch import Tensor

from estimators.sampler import Sampler
from estimators.spaces.distribution import Distribution, PlainDistribution


class MixedDistribution(Distribution):
    """A q of points, whose samples carry the scores' gradient.

    Where rounding lets a density's z fall on the border, its `log_prob` is that of the nearest z
    within.
    """

    @abstractmethod
    def sample(self, sampler: Sampler, samples: int) -> Float[Tensor, "B {samples} *point"]:
        """Independent points, each with its gradient in the scores."""

    @abstractmethod
    def on_vertex(self) -> Float[Tensor, " B"]:
        """Probability that a variable takes one of its values, in the mean of the variables."""

    @abstractmethod
    def face_sizes(self, z: Float[Tensor, "B S *point"]) -> Float[Tensor, "B S V"]:
        """How many vertices the face of each variable has that a sample lies within: 1 at a
        vertex."""

    @abstractmethod
    def rounded(self) -> PlainDistribution:
        """The law of the assignment that is nearest to a sample, variable by variable."""

    def mode(self) -> Shaped[Tensor, "B *z"]:
        """The likeliest of the assignments that are nearest to a sample."""
        return self.rounded().mode()


@cache
def log_volume_of_faces(categories: int) -> float:
    """log Σ_m (C choose m) / (m − 1)!: the measure of all faces of a simplex, of which those of m
    categories have 1 / (m − 1)!, in all but one of the coordinates."""
    sizes = range(1, categories + 1)
    return math.log(sum(math.comb(categories, m) / math.factorial(m - 1) for m in sizes))
