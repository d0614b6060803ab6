"""The one source of an estimator's randomness, so that a test can put its own in its place."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Sampler:
    """Draws from a generator, on the device that the generator lives on.

    Args:
        generator: None for torch's own of the device.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self._generator = generator

    def categorical(
        self, probabilities: Float[Tensor, "B *variables C"], samples: int
    ) -> Int[Tensor, "B {samples} *variables"]:
        """Independent indices of each variable; probabilities up to a factor."""
        rows, *variables, categories = probabilities.shape
        flat = probabilities.reshape(-1, categories)
        drawn = torch.multinomial(flat, samples, True, generator=self._generator)
        return drawn.view(rows, *variables, samples).movedim(-1, 1)

    def bernoulli(
        self, probabilities: Float[Tensor, "B D"], samples: int
    ) -> Float[Tensor, "B {samples} D"]:
        """Independent bits, zeros and ones."""
        repeated = probabilities[:, None, :].expand(-1, samples, -1)
        return torch.bernoulli(repeated, generator=self._generator)

    def gumbel(
        self, like: Float[Tensor, "B *shape"], samples: int
    ) -> Float[Tensor, "B {samples} *shape"]:
        """Standard Gumbel noise."""
        return -self._exponential(like, samples).log()

    def logistic(
        self, like: Float[Tensor, "B *shape"], samples: int
    ) -> Float[Tensor, "B {samples} *shape"]:
        """Standard logistic noise."""
        return self._exponential(like, samples).log() - self._exponential(like, samples).log()

    def normal(
        self, like: Float[Tensor, "B *shape"], samples: int
    ) -> Float[Tensor, "B {samples} *shape"]:
        """Standard normal noise."""
        noise = like.new_empty(like.shape[0], samples, *like.shape[1:])
        return noise.normal_(generator=self._generator)

    def gamma(
        self, shape: Float[Tensor, "B *shape"], samples: int
    ) -> Float[Tensor, "B {samples} *shape"]:
        """Gamma variables of scale 1, with the gradient of their shape by implicit
        differentiation."""
        repeated = shape[:, None].expand(-1, samples, *[-1] * (shape.dim() - 1))
        return torch._standard_gamma(repeated.contiguous(), generator=self._generator)

    def _exponential(self, like: Tensor, samples: int) -> Tensor:
        noise = like.new_empty(like.shape[0], samples, *like.shape[1:])
        return noise.exponential_(generator=self._generator)
