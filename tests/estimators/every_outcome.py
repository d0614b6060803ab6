"""Samplers whose draws are known: one that enumerates them, and one that repeats them."""

import math

import pytest
import torch
from torch import Tensor

from estimators.mappings import all_bit_vectors
from estimators.sampler import Sampler


class EveryOutcome(Sampler):
    """A sampler that deals a different outcome of all its draws to each row of the batch.

    Before the rows can be counted, `recording` notes what is drawn.

    Args:
        draws: how many outcomes each draw has.
        outcome: (B,), the number of each row's outcome, where it is not the row's own number.
    """

    def __init__(self, draws: list[int] | None = None, outcome: Tensor | None = None) -> None:
        super().__init__()
        self.draws: list[int] = []
        self._radix = draws
        self._outcome = outcome
        self._weight: Tensor | None = None

    @classmethod
    def recording(cls) -> "EveryOutcome":
        return cls(None)

    @property
    def weight(self) -> Tensor:
        """Probability of each row's outcome, (B,); 1 where nothing was drawn."""
        return torch.ones(1, dtype=torch.float64) if self._weight is None else self._weight

    def _deal(self, outcomes: int, rows: int) -> Tensor:
        """An outcome (B,) for this draw: a digit of the row's number in mixed radix."""
        place = len(self.draws)
        self.draws.append(outcomes)
        if self._radix is None:
            return torch.zeros(rows, dtype=torch.int64)
        number = torch.arange(rows) if self._outcome is None else self._outcome
        return number // math.prod(self._radix[place + 1 :]) % outcomes

    def _weigh(self, probability: Tensor) -> None:
        assert not probability.requires_grad, "the probabilities of a draw carry a gradient"
        self._weight = probability if self._weight is None else self._weight * probability

    def categorical(self, probabilities: Tensor, samples: int) -> Tensor:
        rows, *variables, size = probabilities.shape
        normalised = probabilities.reshape(rows, -1, size)
        normalised = normalised / normalised.sum(dim=2, keepdim=True)
        count = normalised.shape[1]
        every = torch.cartesian_prod(*[torch.arange(size)] * count).view(-1, count)
        drawn = [every[self._deal(size**count, rows)] for _ in range(samples)]
        for one in drawn:
            self._weigh(normalised.gather(2, one[:, :, None]).flatten(1).prod(dim=1))
        return torch.stack(drawn, dim=1).view(rows, samples, *variables)

    def bernoulli(self, probabilities: Tensor, samples: int) -> Tensor:
        rows, size = probabilities.shape
        every = all_bit_vectors(size, probabilities)
        drawn = torch.stack([every[self._deal(2**size, rows)] for _ in range(samples)], dim=1)
        p = probabilities[:, None, :]
        self._weigh((drawn * p + (1 - drawn) * (1 - p)).prod(dim=2).prod(dim=1))
        return drawn

    def gumbel(self, like: Tensor, samples: int) -> Tensor:
        pytest.skip("this noise can't be enumerated: see test_mean_of_many_draws_is_exact")

    logistic = normal = gamma = gumbel


class SameForEveryRow(Sampler):
    """A sampler that draws for the first row, and deals the same to all."""

    def categorical(self, probabilities: Tensor, samples: int) -> Tensor:
        return _repeated(super().categorical(probabilities[:1], samples), probabilities)

    def bernoulli(self, probabilities: Tensor, samples: int) -> Tensor:
        return _repeated(super().bernoulli(probabilities[:1], samples), probabilities)

    def normal(self, like: Tensor, samples: int) -> Tensor:
        return _repeated(super().normal(like[:1], samples), like)

    def gamma(self, shape: Tensor, samples: int) -> Tensor:
        """Each with the gradient of its own row's shape."""
        assert self._generator is not None
        state, drawn = self._generator.get_state(), []
        for row in shape:
            self._generator.set_state(state)
            drawn.append(super().gamma(row[None], samples))
        return torch.cat(drawn)

    def _exponential(self, like: Tensor, samples: int) -> Tensor:
        return _repeated(super()._exponential(like[:1], samples), like)


def _repeated(drawn: Tensor, like: Tensor) -> Tensor:
    return drawn.expand(len(like), *drawn.shape[1:]).clone()
