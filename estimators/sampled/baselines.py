"""Running statistics of costs, for baselines: averages of earlier batches, and networks."""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn


class MovingAverage(nn.Module):
    """An exponential moving average, unbiased from its first value on (as in Adam).

    Args:
        decay: share of the old value kept at each update, in [0, 1]; 1 makes it the mean of all.
    """

    total: Tensor
    weight: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    @property
    def value(self) -> Float[Tensor, ""]:
        """The average of what was seen; 0 before anything was."""
        return self.total / self.weight.clamp(min=torch.finfo(self.weight.dtype).tiny)

    def update(self, value: Float[Tensor, ""]) -> None:
        """Take in the mean of a batch."""
        self.total.mul_(self.decay).add_(value)
        self.weight.mul_(self.decay).add_(1)


def baseline_network(features: int, hidden: int, layers: int) -> nn.Sequential:
    """A ReLU network from inputs (B, features) to one baseline a row (B, 1).

    Raises:
        ValueError: there are no features.
    """
    if features < 1:
        raise ValueError("its baseline is a network of the inputs: give features, their number")
    widths = [features] + [hidden] * layers
    blocks: list[nn.Module] = []
    for width, following in itertools.pairwise(widths):
        blocks += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*blocks, nn.Linear(widths[-1], 1))
