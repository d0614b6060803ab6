"""Distributions over discrete latent variables, one for every row of a batch.

An estimator names the distribution q that it trains; entropy, ELBO and every metric come from
that object, so that nothing is computed under another q. Throughout, B is the number of rows, K
of categories, D of bits, S of samples a row. An assignment z is an index for a categorical
variable and a vector of D zeros and ones for bits.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import NamedTuple

import torch
from entmax import sparsemax_loss
from torch import Tensor
from torch.nn import functional as F

from estimators.mappings import all_bit_vectors, sparsemax
from estimators.sampler import Sampler


class Support(NamedTuple):
    """Every assignment with positive probability, of every row, as one flat list."""

    z: Tensor
    """(N,) indices or (N, D) bits."""
    row: Tensor
    """(N,) int64: the row that each belongs to, ascending."""
    probability: Tensor
    """(N,), differentiable in the scores."""


class Distribution(ABC):
    """q(z | x) for each of B rows."""

    unsolved: Tensor | None = None
    """(B,) bool: rows where an iterative mapping stopped short of its tolerance; None where q does
    not come from one."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores

    @abstractmethod
    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        """Independent assignments: (B, S) indices or (B, S, D) bits."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log q of assignments (B, S) or (B, S, D), in nats: (B, S); −inf off the support."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Entropy in nats, (B,), differentiable in the scores."""

    @abstractmethod
    def mode(self) -> Tensor:
        """The likeliest assignment: (B,) indices or (B, D) bits."""

    @property
    @abstractmethod
    def support(self) -> Support:
        """All assignments of positive probability in exact arithmetic, or fewer.

        One whose probability underflows to zero may be left out.

        Raises:
            ValueError: there are too many to list (see `support_sizes`).
        """

    @property
    @abstractmethod
    def support_sizes(self) -> Tensor:
        """How many assignments `support` would list for each row, (B,), without listing them."""


class Categorical(Distribution):
    """Softmax over K categories; scores (B, K) are logits up to a constant."""

    @cached_property
    def log_probabilities(self) -> Tensor:
        return self.scores.log_softmax(dim=1)

    @cached_property
    def probabilities(self) -> Tensor:
        return self.log_probabilities.exp()

    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        return sampler.categorical(self.probabilities.detach(), samples)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.log_probabilities.gather(1, z)

    def entropy(self) -> Tensor:
        return -(self.probabilities * self.log_probabilities).sum(dim=1)

    def mode(self) -> Tensor:
        return self.scores.argmax(dim=1)

    @cached_property
    def support(self) -> Support:
        row, z = (self.probabilities.detach() > 0).nonzero(as_tuple=True)
        return Support(z, row, self.probabilities[row, z])

    @property
    def support_sizes(self) -> Tensor:
        return (self.probabilities.detach() > 0).sum(dim=1)

    def fenchel_young_loss(self, target: Tensor) -> Tensor:
        """The loss on known categories (B,) that belongs to softmax: cross-entropy, nats, (B,)."""
        return F.cross_entropy(self.scores, target, reduction="none")


class SparsemaxCategorical(Categorical):
    """Sparsemax over K categories (Martins & Astudillo 2016)."""

    @cached_property
    def probabilities(self) -> Tensor:
        p: Tensor = sparsemax(self.scores, dim=1)
        return p

    @cached_property
    def log_probabilities(self) -> Tensor:
        return self.probabilities.log()

    def entropy(self) -> Tensor:
        return _entropy(self.support, self.scores)

    def fenchel_young_loss(self, target: Tensor) -> Tensor:
        """The loss on known categories (B,) that belongs to sparsemax: the sparsemax loss, (B,)."""
        loss: Tensor = sparsemax_loss(self.scores, target)
        return loss


class BitDistribution(Distribution):
    """q over bit-vectors."""

    @abstractmethod
    def marginals(self) -> Tensor:
        """Probability that each bit is on, (B, D)."""


class BernoulliBits(BitDistribution):
    """D independent bits; scores (B, D) are their log-odds."""

    @property
    def probabilities(self) -> Tensor:
        return self.scores.sigmoid()

    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        return sampler.bernoulli(self.probabilities.detach(), samples)

    def log_prob(self, z: Tensor) -> Tensor:
        logits = self.scores[:, None, :].expand_as(z)
        return -F.binary_cross_entropy_with_logits(logits, z, reduction="none").sum(dim=2)

    def entropy(self) -> Tensor:
        return (F.softplus(self.scores) - self.scores * self.probabilities).sum(dim=1)

    def mode(self) -> Tensor:
        return (self.scores > 0).to(self.scores.dtype)

    @cached_property
    def support(self) -> Support:
        rows, size = self.scores.shape
        every = all_bit_vectors(size, self.scores).expand(rows, -1, -1)
        row = torch.arange(rows, device=every.device).repeat_interleave(2**size)
        return Support(every.flatten(0, 1), row, self.log_prob(every).exp().flatten())

    @property
    def support_sizes(self) -> Tensor:
        rows, size = self.scores.shape
        return self.scores.new_full((rows,), 2.0**size, dtype=torch.float64)

    def marginals(self) -> Tensor:
        return self.probabilities


class SparseBits(BitDistribution):
    """A distribution over a few bit-vectors, as the sparse mappings return it.

    Args:
        scores: (B, D), which the mapping had.
        vertices: (B, M, D) zeros and ones, distinct where their probability is positive.
        probabilities: (B, M), differentiable in the scores; zero for padding.
        unsolved: (B,) bool, rows that the mapping did not solve to its tolerance.
    """

    def __init__(
        self,
        scores: Tensor,
        vertices: Tensor,
        probabilities: Tensor,
        unsolved: Tensor | None = None,
    ) -> None:
        super().__init__(scores)
        self.vertices = vertices
        self._probabilities = probabilities
        self.unsolved = unsolved

    def sample(self, sampler: Sampler, samples: int) -> Tensor:
        chosen = sampler.categorical(self._probabilities.detach(), samples)
        return self.vertices.gather(1, chosen[:, :, None].expand(-1, -1, self.scores.shape[1]))

    def log_prob(self, z: Tensor) -> Tensor:
        # Two bit-vectors agree where their Hamming distance |z| + |v| − 2⟨z, v⟩ is zero.
        overlap = torch.einsum("bsd,bmd->bsm", z, self.vertices)
        distance = z.sum(dim=2)[:, :, None] + self.vertices.sum(dim=2)[:, None, :] - 2 * overlap
        same = (distance < 0.5).to(self._probabilities.dtype)
        return torch.einsum("bsm,bm->bs", same, self._probabilities).log()

    def entropy(self) -> Tensor:
        return _entropy(self.support, self.scores)

    def mode(self) -> Tensor:
        best = self._probabilities.argmax(dim=1)
        return self.vertices[torch.arange(len(best), device=best.device), best]

    @property
    def positive(self) -> Tensor:
        """Which vertices have a positive probability, (B, M) bool: the others are padding."""
        return self._probabilities.detach() > 0

    @cached_property
    def support(self) -> Support:
        row, column = self.positive.nonzero(as_tuple=True)
        return Support(self.vertices[row, column], row, self._probabilities[row, column])

    @property
    def support_sizes(self) -> Tensor:
        return self.positive.sum(dim=1)

    def marginals(self) -> Tensor:
        return torch.einsum("bm,bmd->bd", self._probabilities, self.vertices)


def _entropy(support: Support, scores: Tensor) -> Tensor:
    """−Σ p log p over the support alone: at p = 0 the gradient of p log p is infinite."""
    terms = -support.probability * support.probability.log()
    return scores.new_zeros(len(scores)).index_add(0, support.row, terms)
