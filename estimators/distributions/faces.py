"""Faces of a simplex: which of K categories take part, never none (Farinhas et al. 2022, 4.1).

    P(f) ∝ exp ⟨scores, f⟩,   f ∈ {0, 1}^K without 0

They are K independent bits with the scores as log-odds, given that one of them is on. Which is the
first says that exactly: those before it are off, and those after it as independent as ever.
"""

from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from estimators.sampler import Sampler


class Faces:
    """Of each of several variables.

    Logarithms are sums of terms of one sign, so that no scores are too far from 0 for them.
    """

    def __init__(self, scores: Float[Tensor, "B V C"]) -> None:
        self.scores = scores
        self.log_on, self.log_off = F.logsigmoid(scores), F.logsigmoid(-scores)

    @cached_property
    def log_first(self) -> Float[Tensor, "B V C"]:
        """Log-probability, of bits that may all be off, that each is the first that is on."""
        return self.log_on + self.log_off.cumsum(dim=2) - self.log_off

    @cached_property
    def log_any(self) -> Float[Tensor, "B V 1"]:
        """Log-probability, of bits that may all be off, that one is on."""
        return self.log_first.logsumexp(dim=2, keepdim=True)

    def sample(self, sampler: Sampler, samples: int) -> Bool[Tensor, "B {samples} V C"]:
        shape = self.scores.shape[1:]
        with torch.no_grad():
            first = sampler.categorical(self.log_first.softmax(dim=2), samples)[..., None]
            others = sampler.bernoulli(self.scores.sigmoid().flatten(1), samples)
        place = torch.arange(shape[1], device=first.device)
        after = others.unflatten(2, shape).bool() & (place > first)
        return after | (place == first)

    def log_prob(self, face: Bool[Tensor, "B S V C"]) -> Float[Tensor, "B S V"]:
        each = torch.where(face, self.log_on[:, None], self.log_off[:, None])
        return each.sum(dim=3) - self.log_any.squeeze(2)[:, None]

    @property
    def marginals(self) -> Float[Tensor, "B V C"]:
        """Probability that each category takes part."""
        return (self.log_on - self.log_any).exp()

    def entropy(self) -> Float[Tensor, "B V"]:
        on = self.marginals
        return self.log_any.squeeze(2) - (on * self.log_on + (1 - on) * self.log_off).sum(dim=2)

    def log_vertex(self) -> Float[Tensor, "B V C"]:
        """Log-probability of each category alone."""
        others = self.log_off.sum(dim=2, keepdim=True) - self.log_off
        return self.log_on + others - self.log_any
