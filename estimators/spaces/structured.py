"""The plain q over a space whose assignments have parts that depend on each other."""

from functools import cached_property

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from estimators.spaces.base import Space
from estimators.spaces.distribution import PlainDistribution, Support

MOST_LISTED = 2**16
"""Most assignments of a structure that are listed."""


class Structured(PlainDistribution):
    """What follows from the probabilities of assignments: lists, where they are few, and the mode.

    A subclass gives these, samples, marginals and the entropy.
    """

    def __init__(self, space: Space, scores: Float[Tensor, "B *scores"]) -> None:
        super().__init__(scores, space.log_assignments)
        self.space = space

    def mode(self) -> Shaped[Tensor, "B *z"]:
        return self.space.best(self.scores)

    @cached_property
    def support(self) -> Support:
        every, joint = self.space.every(self.scores), self.joint()
        row, number = (joint.detach() > 0).nonzero(as_tuple=True)
        return Support(every[number], row, joint[row, number])

    def joint(self) -> Float[Tensor, "B M"]:
        every = self.space.every(self.scores)
        return self.log_prob(every.expand(len(self.scores), *every.shape)).exp()

    @property
    def support_sizes(self) -> Float[Tensor, " B"]:
        size = torch.tensor(self.space.log_assignments, dtype=torch.float64).exp().round()
        return size.to(self.scores.device).expand(len(self.scores))
