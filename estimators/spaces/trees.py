"""Dependency trees over n words, not necessarily projective, with one root.

    q(z) ∝ exp Σ_m scores[m, z_m]   over heads z that are a tree

z_m is the head of word m, and m itself where m is the root. Sums over all n^(n−1) trees, and the
best of them, are in `mappings/trees.py`. Where sentences of a batch differ in length, `masked`
scores leave the shorter ones as many trees as they have.
"""

import math
from functools import cache, cached_property

import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from estimators.mappings import sparsemap
from estimators.mappings.finite import in_their_dtype
from estimators.mappings.trees import (
    below_them,
    best_trees,
    log_partition,
    partition,
    tree_marginals,
)
from estimators.sampler import Sampler
from estimators.spaces.base import Space
from estimators.spaces.forbidden import FORBIDDEN, forbidden
from estimators.spaces.structured import MOST_LISTED, Structured


class Trees(Space):
    """Heads of n words that are a tree with one root.

    Args:
        words: n.
    """

    name = "trees"

    def __init__(self, words: int) -> None:
        super().__init__()
        if words < 1:
            raise ValueError(f"Trees({words}): give one word at least")
        self.scores_shape = self.point_shape = (words, words)
        self.z_shape = (words,)
        self.count = words ** (words - 1)
        self.log_assignments = (words - 1) * math.log(words)
        self.dimension = words**2 - words - 1 if words > 1 else 0
        self.noise_samples_q = words == 1

    def __repr__(self) -> str:
        return f"Trees({self.words})"

    @property
    def words(self) -> int:
        """n."""
        return self.z_shape[0]

    @property
    def size(self) -> int:
        return self.words

    def masked(
        self, scores: Float[Tensor, "B n n"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "B n n"]:
        """Scores whose trees are those of the first words alone, as many as the row is long.

        Each word past them has the one before it as its head, with score 0, and is no head of
        theirs, nor the root: all that there is to say of q, and gradients, are what they were for
        the shorter sentence. But `log_assignments` stays that of n words: of l words it is
        (l − 1) log l.

        Args:
            lengths: 1 to n.
        Raises:
            ValueError: a length is out of range.
        """
        if not bool(((lengths >= 1) & (lengths <= self.words)).all()):
            raise ValueError(f"the lengths are {lengths.tolist()}: give 1 to {self.words}")
        number = torch.arange(self.words, device=scores.device)
        past = number >= lengths.to(scores.device)[:, None]
        forced = past[:, :, None] & (number == number[:, None] - 1)
        beyond = past[:, :, None] | past[:, None, :]
        return scores.masked_fill(beyond, FORBIDDEN).masked_fill(forced, 0)

    def every(self, like: Tensor) -> Int[Tensor, "M n"]:
        """In lexicographic order of the heads."""
        if self.count > MOST_LISTED:
            raise ValueError(
                f"the {self.count} assignments of {self} are too many: "
                f"at most {MOST_LISTED} are listed"
            )
        return _every(self.words).to(like.device)

    def point(
        self, z: Shaped[Tensor, "*batch"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "*batch_and_words n"]:
        return z if z.is_floating_point() else F.one_hot(z, self.words).to(dtype)

    def _best(self, scores: Float[Tensor, "*batch n n"]) -> Int[Tensor, "*batch n"]:
        return best_trees(scores)

    def plain(self, scores: Float[Tensor, "B n n"]) -> "DependencyTrees":
        return DependencyTrees(self, scores)

    def soft(self, scores: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        flat = scores.reshape(-1, self.words, self.words)
        return self.plain(flat).marginals().view_as(scores)

    def noise(
        self, like: Float[Tensor, "B n n"], sampler: Sampler, samples: int
    ) -> Float[Tensor, "B {samples} n n"]:
        """Standard Gumbel, of each arc."""
        return sampler.gumbel(like, samples)

    def noise_slope(self, noise: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return -(-noise).expm1()

    def nearest(self, target: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """SparseMAP by the active-set method, without gradient; forbidden arcs stay out."""
        flat = target.detach().double().reshape(-1, self.words, self.words)

        def oracle(direction: Float64[Tensor, "R P"]) -> Float64[Tensor, "R P"]:
            trees = best_trees(direction.unflatten(1, self.scores_shape))
            return self.point(trees, torch.float64).flatten(1)

        return sparsemap(flat.flatten(1), oracle).marginals.view_as(target).to(target.dtype)

    def centred(self, scores: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
        """Among the arcs that are not forbidden; these get zero."""
        allowed = (~forbidden(scores)).to(scores.dtype)
        of_word = allowed.sum(dim=-1, keepdim=True).clamp(min=1)
        seen = torch.where(allowed > 0, scores, 0)
        within = (seen - seen.sum(dim=-1, keepdim=True) / of_word) * allowed
        roots = torch.eye(self.words, dtype=scores.dtype, device=scores.device) * allowed
        across = (roots - roots.sum(dim=-1, keepdim=True) / of_word) * allowed
        square = across.square().sum(dim=(-2, -1), keepdim=True)
        along = (across * within).sum(dim=(-2, -1), keepdim=True)
        return within - across * (along / torch.where(square > 0, square, 1))


@cache
def _every(words: int) -> Int[Tensor, "M n"]:
    heads = torch.cartesian_prod(*[torch.arange(words)] * words).view(-1, words)
    heads = heads[(heads == torch.arange(words)).sum(dim=1) == 1]
    end = heads
    for _ in range(words):
        end = heads.gather(1, end)
    return heads[(heads.gather(1, end) == end).all(dim=1)]


class DependencyTrees(Structured):
    """Trees; the scores are log-weights of arcs."""

    space: Trees

    @cached_property
    def _above(self) -> Float64[Tensor, "B n n"]:
        """Scores from those of the best tree's arcs: what a word's have in common makes no
        difference, and the likely trees are near zero."""
        with in_their_dtype(self.scores):
            scores = self.scores.double()
        best = best_trees(self.scores)[:, :, None]
        return scores - scores.detach().gather(2, best)

    @cached_property
    def _log_total(self) -> Float64[Tensor, " B"]:
        return log_partition(self._above)

    @cached_property
    def _marginals(self) -> Float64[Tensor, "B n n"]:
        return tree_marginals(self._above)

    def sample(self, sampler: Sampler, samples: int) -> Int[Tensor, "B {samples} n"]:
        """Word by word: which of the arcs so far go by way of it, and its own head."""
        rows, words, _ = self.scores.shape
        device = self.scores.device
        drawn = partition(self._above)
        z = torch.zeros(rows, samples, words, dtype=torch.int64)
        for word, shares in enumerate(drawn.through, 1):
            share = shares[:, None].expand(-1, samples, -1, -1)
            share = share.gather(3, z[:, :, :word, None]).to(device)
            through = sampler.bernoulli(share.flatten(1), 1).view(rows, samples, word) > 0
            below, root = below_them(z, through.cpu(), word)
            log_weights = drawn.log_weights[:, None, word, :word].masked_fill(below, -torch.inf)
            log_weights = log_weights.masked_fill(root[:, :, None], 0)  # there is nothing to draw
            head = sampler.categorical(log_weights.softmax(dim=2).to(device), 1).squeeze(1).cpu()
            z[:, :, word] = torch.where(root, word, head)
        return z.to(device)

    def log_prob(self, z: Shaped[Tensor, "B S *z"]) -> Float[Tensor, "B S"]:
        above = self._above
        if z.is_floating_point():
            total = (z.double() * above[:, None]).sum(dim=(2, 3))
        else:
            total = above.gather(2, z.mT).sum(dim=1)
        return (total - self._log_total[:, None]).to(self.scores.dtype)

    def entropy(self) -> Float[Tensor, " B"]:
        """−log q, which is linear in the point, at the marginals."""
        mean = (self._above * self._marginals).sum(dim=(1, 2))
        return (self._log_total - mean).to(self.scores.dtype)

    def marginals(self) -> Float[Tensor, "B n n"]:
        return self._marginals.to(self.scores.dtype)
