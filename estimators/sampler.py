"""The one source of an estimator's randomness, so that a test can put its own in its place."""

import torch
from torch import Tensor


class Sampler:
    """Draws from a seeded generator, on the device that the generator lives on."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def categorical(self, probabilities: Tensor, samples: int) -> Tensor:
        """Independent indices: probabilities (B, K) to (B, samples), int64."""
        return torch.multinomial(probabilities, samples, True, generator=self._generator)

    def bernoulli(self, probabilities: Tensor, samples: int) -> Tensor:
        """Independent bits: probabilities (B, D) to zeros and ones (B, samples, D)."""
        repeated = probabilities[:, None, :].expand(-1, samples, -1)
        return torch.bernoulli(repeated, generator=self._generator)

    def gumbel(self, like: Tensor, samples: int) -> Tensor:
        """Standard Gumbel noise: (B, samples, K) for `like` (B, K)."""
        return -self._exponential(like, samples).log()

    def logistic(self, like: Tensor, samples: int) -> Tensor:
        """Standard logistic noise: (B, samples, D) for `like` (B, D)."""
        return self._exponential(like, samples).log() - self._exponential(like, samples).log()

    def _exponential(self, like: Tensor, samples: int) -> Tensor:
        noise = like.new_empty(like.shape[0], samples, like.shape[1])
        return noise.exponential_(generator=self._generator)
