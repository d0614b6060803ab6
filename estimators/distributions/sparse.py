"""Distributions over a few assignments of a row, as the sparse mappings return them."""

from functools import cached_property

import torch
from entmax import sparsemax_loss
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from estimators.mappings.finite import in_their_dtype
from estimators.mappings.support import least
from estimators.sampler import Sampler
from estimators.spaces.base import Space
from estimators.spaces.distribution import FiniteDistribution, Support


class SparseDistribution(FiniteDistribution):
    """A q that lists its assignments, whatever their space.

    Args:
        space: what they are assignments of.
        scores: which the mapping had.
        listed: distinct where their probability is positive.
        probabilities: differentiable in the scores; zero for padding alone, which has no
            derivative.
        unsolved: rows that the mapping did not solve to its tolerance.
    """

    def __init__(
        self,
        space: Space,
        scores: Float[Tensor, "B *scores"],
        listed: Shaped[Tensor, "B M *z"],
        probabilities: Float[Tensor, "B M"],
        unsolved: Bool[Tensor, " B"] | None = None,
    ) -> None:
        super().__init__(scores, space.log_assignments)
        self.space = space
        self.listed = listed
        self.probabilities = probabilities
        self.unsolved = unsolved

    def sample(self, sampler: Sampler, samples: int) -> Shaped[Tensor, "B {samples} *z"]:
        chosen = sampler.categorical(self.probabilities.detach(), samples)
        return self.listed[_rows(chosen)[:, None], chosen]

    def log_prob(self, z: Shaped[Tensor, "B S *z"]) -> Float[Tensor, "B S"]:
        # Two indicator vectors agree where their Hamming distance |z| + |v| − 2⟨z, v⟩ is zero.
        dtype = self.probabilities.dtype
        point, other = (self.space.point(one, dtype).flatten(2) for one in (z, self.listed))
        with in_their_dtype(self.scores):
            overlap = torch.einsum("bsp,bmp->bsm", point, other)
            distance = point.sum(dim=2)[:, :, None] + other.sum(dim=2)[:, None, :] - 2 * overlap
            return torch.einsum("bsm,bm->bs", (distance < 0.5).to(dtype), self.probabilities).log()

    def entropy(self) -> Float[Tensor, " B"]:
        # Logarithms need no gradient, as probabilities sum to one; and where there is hardly any
        # probability the entropy, which has a cusp there, takes no side.
        _, row, probability = self.support
        p = probability.detach()
        logs = torch.where(p > 2 * least(p.dtype), p.log(), 0)
        return self.scores.new_zeros(len(self.scores)).index_add(0, row, -probability * logs)

    def mode(self) -> Shaped[Tensor, "B *z"]:
        best = self.probabilities.argmax(dim=1)
        return self.listed[_rows(best), best]

    @property
    def positive(self) -> Bool[Tensor, "B M"]:
        """Which of those listed have a positive probability: the others are padding."""
        return self.probabilities.detach() > 0

    @cached_property
    def support(self) -> Support:
        row, column = self.positive.nonzero(as_tuple=True)
        return Support(self.listed[row, column], row, self.probabilities[row, column])

    @property
    def support_sizes(self) -> Int[Tensor, " B"]:
        return self.positive.sum(dim=1)

    def marginals(self) -> Float[Tensor, "B *point"]:
        point = self.space.point(self.listed, self.probabilities.dtype)
        with in_their_dtype(self.scores):
            mean = torch.einsum("bm,bmp->bp", self.probabilities, point.flatten(2))
        return mean.view(len(mean), *self.space.point_shape)

    def label_loss(self, target: Int[Tensor, "B V"]) -> Float[Tensor, " B"]:
        """The loss on known categories that belongs to sparsemax (Martins & Astudillo 2016), and
        to SparseMAP, over all categories of each variable."""
        with in_their_dtype(self.scores):
            loss = sparsemax_loss(self.scores.flatten(0, 1), target.flatten())
        return loss.view_as(target).sum(dim=1)


def _rows(of: Tensor) -> Int[Tensor, " B"]:
    return torch.arange(len(of), device=of.device)
