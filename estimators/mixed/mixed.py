"""What estimators through a mixed variable have in common.

Their z is continuous, and may be an assignment with a positive probability: a sample is a smooth
function of the scores and of noise, so that the slope of the cost at it, through it,

    ⟨∂f/∂z, ∂z/∂scores⟩

is an unbiased gradient of E_q[f(z)], of a model whose latent variable is that z.
"""

from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from estimators.base import Bias
from estimators.distributions.mixed import MixedDistribution
from estimators.pathwise import Pathwise
from estimators.sampler import Sampler
from estimators.spaces import Bits, Space
from estimators.spaces.distribution import Distribution


class Mixed(Pathwise):
    """The mean over S samples of a mixed q, which a subclass names."""

    bias: ClassVar[Bias] = "unbiased"
    own_model = True
    spaces: ClassVar[tuple[type[Space], ...]] = (Bits,)

    @abstractmethod
    def distribution(self, scores: Float[Tensor, "B *scores"]) -> MixedDistribution:
        """The mixed q."""

    def relax(self, q: Distribution, sampler: Sampler) -> Float[Tensor, "B S *point"]:
        return q.sample(sampler, self.settings.samples)
