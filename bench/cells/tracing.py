"""The variance of the encoder's gradient over training, as papers trace it."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

DECAY = 0.999
"""Of the averages over steps."""


class GradientTrace:
    """E[g²] − E[g]² of each parameter's gradient g, under weights that fall with a step's age.

    Both moments are exponential averages over the steps so far (Tucker et al. 2017; Dong et al.
    2020), here with weights that sum to one from the first step on. What training moves the
    gradient by counts as variance.

    Args:
        parameters: of the encoder. Their `.grad` are of a batch's mean.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        self._means = [torch.zeros_like(parameter.detach()) for parameter in parameters]
        self._variances = [torch.zeros_like(mean) for mean in self._means]
        self._steps = 0

    @torch.no_grad()
    def add(self) -> None:
        """Take the gradients that are there as those of another step."""
        self._steps += 1
        share = (1 - DECAY) / (1 - DECAY**self._steps)  # of this step in all of them
        for p, mean, variance in zip(self._parameters, self._means, self._variances, strict=True):
            assert p.grad is not None
            change = p.grad - mean  # the difference of two moments would cancel in float32
            mean.add_(change, alpha=share)
            variance.addcmul_(change, change, value=share).mul_(1 - share)

    def variance(self) -> float | None:
        """The mean over parameters, in nats² for weights without a unit; None before any step."""
        if not self._steps:
            return None
        total = sum(float(variance.sum(dtype=torch.float64)) for variance in self._variances)
        return total / sum(variance.numel() for variance in self._variances)

    def state(self) -> dict[str, Any]:
        """All that changes, as tensors and plain values that go on changing."""
        return {"means": self._means, "variances": self._variances, "steps": self._steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` was."""
        self._means, self._variances = state["means"], state["variances"]
        self._steps = state["steps"]


def encoder_of(task: nn.Module, scores: Float[Tensor, "B *scores"]) -> list[nn.Parameter]:
    """The parameters that scores depend on."""
    parameters = [*task.parameters()]
    through = torch.autograd.grad(scores.sum(), parameters, retain_graph=True, allow_unused=True)
    return [p for p, slope in zip(parameters, through, strict=True) if slope is not None]
