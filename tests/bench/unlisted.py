"""A q that can be sampled and no more, as one over a mixed variable."""

from torch import Tensor

from estimators.sampler import Sampler
from estimators.spaces.distribution import Distribution


class Unlisted(Distribution):
    """Another distribution, of which no support is known."""

    def __init__(self, other: Distribution) -> None:
        super().__init__(other.scores, other.log_volume)
        self.other = other

    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        return self.other.sample(sampler, samples)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.other.log_prob(z)

    def entropy(self) -> Tensor:
        return self.other.entropy()

    def mode(self) -> Tensor:
        return self.other.mode()
