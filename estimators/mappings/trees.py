"""Dependency trees over n words, not necessarily projective: sums over all of them, and the best.

Every word has a head, another word, but for one, the root; scores[m, h] is that of word m with head
h, and scores[m, m] that of m as the root (Koo et al. 2007). With weights w = exp(scores), and r for
those of roots, Z is the sum over trees of the product of their weights.

The determinants of the matrix-tree theorem lose all digits where scores differ by more than some
thirty. State reduction (Grassmann, Taksar & Heyman 1985) finds the same by sums, products and
ratios of positive numbers. The last word k is taken out, and what went by way of it is added to
the others:

    S_k = Σ_{j<k} w[k, j]      w[i, j] += w[i, k] w[k, j] / S_k      r[i] += w[i, k] r[k] / S_k

Trees over fewer words with the new weights are worth 1 / S_k of those over all, so that

    Z = r[0] S_1 S_2 … S_{n−1}

Backwards this samples a tree. A sampled tree without k has arcs i → j, and perhaps a root i, that
went by way of k with a probability of w[i, k] w[k, j] / S_k over the new w[i, j], each on its own.
These i become children of k. If one of them was the root, k is; else its head j is one that is not
below k, with a probability in proportion to w[k, j]. (Several children i may have gone to as many
j. Given what hangs on k, the weights of all ways to do so add up to one, or, where k is not the
root, to the share of w[k, j] that leads to none of its own.) With max for + it is the tree of
highest score.

Of marginals: let Y[m, h] be what a walk from h collects until it comes to m, if it leaves a word
for another at the rates w and is paid at the rate r. Then w[m, h] Y[m, h] is in proportion to the
sum of all trees where m has head h, and r[m] to that where it is the root. Y[m, ·] is found by
taking out all words but m, again without a subtraction.
"""

import importlib
from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from estimators.mappings.finite import mapping


class Partition(NamedTuple):
    """What samples are drawn by, without gradient, on the CPU."""

    through: list[Float64[Tensor, "B k k"]]
    """For each word k from 1 on: the share by way of k in the weight of i → j, or of i as the root
    where j is i, once all words after k are out."""
    log_weights: Float64[Tensor, "B n n"]
    """In row k the log-weights of heads j < k then; the rest is zero."""


@mapping
def best_trees(scores: Float[Tensor, "*batch n n"]) -> Int[Tensor, "*batch n"]:
    """Heads of the tree of highest score, without gradient; the root is its own.

    The work is done in float64, n³ / 3 steps a row.

    Raises:
        TypeError: the scores are no floating-point numbers.
    """
    rows = _numbers(scores).flatten(0, -3) if scores.dim() > 2 else _numbers(scores)[None]
    heads = torch.empty(rows.shape[:2], dtype=torch.int64)
    _loops().best_trees(rows.numpy(), heads.numpy())
    return heads.view(scores.shape[:-1]).to(scores.device)


def log_partition(scores: Float64[Tensor, "B n n"]) -> Float64[Tensor, " B"]:
    """log Z, with first and second derivatives."""
    total: Tensor = _LogPartition.apply(scores)  # type: ignore[no-untyped-call]
    return total


def tree_marginals(scores: Float64[Tensor, "B n n"]) -> Float64[Tensor, "B n n"]:
    """Probabilities of arcs, with a first derivative: their covariances."""
    marginals: Tensor = _Marginals.apply(scores)  # type: ignore[no-untyped-call]
    return marginals


def partition(scores: Float64[Tensor, "B n n"]) -> Partition:
    """What samples are drawn by."""
    _, through, log_weights = _eliminated(scores, draws=True)
    parts = through.split([k * k for k in range(1, scores.shape[1])], dim=1)
    return Partition([part.unflatten(1, (k, k)) for k, part in enumerate(parts, 1)], log_weights)


def below_them(
    heads: Int[Tensor, "B S n"], through: Bool[Tensor, "B S k"], word: int
) -> tuple[Bool[Tensor, "B S k"], Bool[Tensor, "B S"]]:
    """Make words of trees before word k its children, in place: which words are below it then, and
    can't be its heads, and whether it is the root."""
    below = through.flatten(0, 1).contiguous()
    root = torch.zeros(len(below), dtype=torch.bool)
    _loops().insert_rows(heads.view(len(below), -1).numpy(), below.numpy(), word, root.numpy())
    return below.view_as(through), root.view(through.shape[:2])


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(scores)
        return _eliminated(scores, draws=False)[0].to(scores.device)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (scores,) = ctx.saved_tensors
        return gradient[:, None, None] * tree_marginals(scores)


class _Marginals(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores):  # type: ignore[no-untyped-def]
        marginals, _ = _passages(scores, None)
        ctx.save_for_backward(scores, marginals)
        return marginals

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """The covariance is symmetric: this is the change of the marginals in that direction."""
        scores, marginals = ctx.saved_tensors
        _, changes = _passages(scores, gradient)
        moved = gradient + changes
        return marginals * (moved - (marginals * moved).sum(dim=2, keepdim=True))


def _loops() -> ModuleType:
    """Those of the CPU, with which numba comes, once they are needed."""
    return importlib.import_module("estimators.mappings.compiled.trees")


def _eliminated(
    scores: Float64[Tensor, "B n n"], draws: bool
) -> tuple[Float64[Tensor, " B"], Float64[Tensor, "B K"], Float64[Tensor, "B n n"]]:
    """log Z and, if draws are wanted, what they are made by."""
    rows, words, _ = scores.shape
    size = (words - 1) * words * (2 * words - 1) // 6 if draws else 0
    totals, through, weights = (
        torch.zeros(rows, *shape, dtype=torch.float64) for shape in ((), (size,), (words, words))
    )
    _loops().partition(_numbers(scores).numpy(), totals.numpy(), through.numpy(), weights.numpy())
    return totals, through, weights


def _passages(
    scores: Float64[Tensor, "B n n"], direction: Float64[Tensor, "B n n"] | None
) -> tuple[Float64[Tensor, "B n n"], Float64[Tensor, "B n n"]]:
    """Marginals, and the change of log Y in a direction of the scores: zero for Y[m, m]."""
    numbers = _numbers(scores)
    along = numbers if direction is None else _numbers(direction)
    marginals, changes = torch.zeros_like(numbers), torch.zeros_like(numbers)
    moves = direction is not None
    _loops().passages(numbers.numpy(), along.numpy(), moves, marginals.numpy(), changes.numpy())
    return marginals.to(scores.device), changes.to(scores.device)


def _numbers(scores: Float[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
    """As the loops take them."""
    return scores.detach().cpu().double().contiguous()
