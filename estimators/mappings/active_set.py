"""SparseMAP by the active-set method, batched.

    μ* = argmin_μ ½‖μ − s‖²  over the convex hull of the vertices

(Niculae et al. 2018). The method keeps a small set of vertices; it solves for the best
combination of them, drops those whose weight would turn negative, and adds the vertex that the
oracle names, until none would help. This is Wolfe's (1976) algorithm for the point of least norm
in the hull of u = v − s: with Q = UUᵀ + 11ᵀ the best affine combination is p ∝ Q⁻¹1. All rows run
side by side, each with its own set; Q⁻¹ is updated by one outer product a step.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

DEPENDENT = 1e-10
"""A vertex this close to the affine hull of the set, relative to its norm, adds nothing."""


def on_its_support(
    vertices: Float[Tensor, "B M D"],
    weights: Float[Tensor, "B M"],
    scores: Float64[Tensor, "B D"],
) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B M"]]:
    """A given solution with the derivative of its active set: vertices, and probabilities.

    Args:
        vertices: the support.
        weights: zero for padding, without gradient.
        scores: s, of the problem with one variable for each coordinate.
    """
    used = (weights > 0).to(scores.dtype)
    shifted = (vertices - scores.detach()[:, None, :]) * used[:, :, None]
    gram = shifted @ shifted.transpose(1, 2) + used[:, :, None] * used[:, None, :]
    inverse = torch.linalg.pinv(gram, hermitian=True)
    return vertices, differentiable(vertices, weights, inverse, inverse @ used[:, :, None], scores)


def differentiable(
    vertices: Float[Tensor, "B M D"],
    weights: Float[Tensor, "B M"],
    inverse: Float[Tensor, "B M M"],
    y: Float[Tensor, "B M 1"],
    scores: Float[Tensor, "B D"],
) -> Float[Tensor, "B M"]:
    """Weights with their derivative in the scores: that of V (s − constant).

    The derivative is R − R11ᵀR / 1ᵀR1 applied to it, with y = R1: the inverse of VVᵀ on weights
    that sum to zero.
    """
    shift = scores - scores.detach()
    return moved(weights, inverse, y, torch.einsum("bmd,bd->bm", vertices, shift))


def moved(
    weights: Float[Tensor, "B M"],
    inverse: Float[Tensor, "B M M"],
    y: Float[Tensor, "B M 1"],
    change: Float[Tensor, "B M"],
) -> Float[Tensor, "B M"]:
    """Weights that follow a change of the vertices' scores, which is zero and has their graph."""
    change = change[:, :, None]
    along = inverse @ change - y * (y * change).sum(dim=1, keepdim=True) / y.sum(
        dim=1, keepdim=True
    )
    return weights + along.squeeze(2)


def snapped(direction: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """A direction in whole multiples of 2⁻²⁶ of its largest entry, so that ties are ties.

    The direction is at right angles to the differences of a set's vertices, so that entries are
    equal, or zero, again and again; rounding would choose between them, and choose otherwise for
    scores next to these.
    """
    unit = direction.abs().amax(dim=1, keepdim=True).mul_(2.0**-26).clamp_(min=1e-300)
    return (direction / unit).round_()


class Solver:
    """The active sets of all rows: U = V − s, R = Q⁻¹, y = R1 and the weights p.

    A row's vertices sit in slots; a free slot has zeros in R, y and p. Slots are added as any
    row needs them.
    """

    def __init__(self, target: Float[Tensor, "B D"], start: Float[Tensor, "B D"]) -> None:
        rows, size = target.shape
        slots = min(size + 1, 16)
        self.target = target
        self.shifted = target.new_zeros(rows, slots, size)
        self.inverse = target.new_zeros(rows, slots, slots)
        self.y, self.weights = target.new_zeros(rows, slots), target.new_zeros(rows, slots)
        self.used = torch.zeros(rows, slots, dtype=torch.bool, device=target.device)
        self.rows = torch.arange(rows, device=target.device)
        u = start - target
        self.shifted[:, 0] = u
        self.inverse[:, 0, 0] = self.y[:, 0] = 1 / (u.square().sum(dim=1) + 1)
        self.weights[:, 0] = 1
        self.used[:, 0] = True

    def point(self) -> Float[Tensor, "B D"]:
        """μ − s for the current weights."""
        return torch.bmm(self.weights[:, None, :], self.shifted).squeeze(1)

    def add(self, vertices: Float[Tensor, "B D"], wanted: Bool[Tensor, " B"]) -> bool:
        """Add a vertex to the rows that want one, and solve for the weights again.

        A vertex in the affine hull of the set is not added. Returns whether any row moved.
        """
        u = vertices - self.target
        q = torch.bmm(self.shifted, u[:, :, None]).add_(1)
        w = torch.bmm(self.inverse, q).squeeze(2)
        q = q.squeeze(2)
        norm = u.square().sum(dim=1) + 1
        schur = norm - (q * w).sum(dim=1)
        wanted = wanted & (schur > DEPENDENT * norm)
        if not wanted.any():
            return False
        if self.used.all(dim=1).logical_and(wanted).any():
            self._grow()
            w = torch.nn.functional.pad(w, (0, self.used.shape[1] - w.shape[1]))
            q = torch.nn.functional.pad(q, (0, self.used.shape[1] - q.shape[1]))
        slot = self.used.to(torch.uint8).argmin(dim=1)
        inverse_schur = torch.where(wanted, 1 / schur, 0)
        step = (1 - (q * self.y).sum(dim=1)) * inverse_schur
        w[self.rows, slot] = torch.where(wanted, -1.0, w[self.rows, slot])
        self.inverse.baddbmm_((inverse_schur[:, None] * w)[:, :, None], w[:, None, :])
        self.y.addcmul_(step[:, None], w, value=-1)
        here = self.rows[wanted]
        self._put(here, slot[here], u[here])
        self._reweigh(wanted)
        return True

    def _put(
        self, rows: Int[Tensor, " R"], slot: Int[Tensor, " R"], u: Float[Tensor, "R D"]
    ) -> None:
        """Fill a slot of some rows."""
        self.shifted[rows, slot] = u
        self.used[rows, slot] = True

    def _best(self, rows: Int[Tensor, " R"] | slice) -> Float[Tensor, "R M"]:
        """The weights of the best affine combination, for some rows."""
        y = self.y[rows]
        return y / y.sum(dim=1, keepdim=True)

    def _reweigh(self, moved: Bool[Tensor, " B"]) -> None:
        """Move the weights to the best affine combination, dropping vertices on the way to it."""
        best = self._best(slice(None))
        blocked = moved & (best < 0).any(dim=1)
        self.weights = torch.where((moved & ~blocked)[:, None], best, self.weights)
        rows = blocked.nonzero().squeeze(1)
        while len(rows):
            p, best = self.weights[rows], self._best(rows)
            reach = torch.where(best < 0, p / (p - best), torch.inf)
            share, first = reach.min(dim=1)
            blocked = share < torch.inf
            p = p + share.clamp(max=1)[:, None] * (best - p)
            self.weights[rows] = p.clamp_(min=0)
            rows, first = rows[blocked], first[blocked]
            self._drop(rows, first)

    def _drop(self, rows: Int[Tensor, " R"], slot: Int[Tensor, " R"]) -> None:
        """Free a slot of some rows."""
        every = torch.arange(len(rows), device=rows.device)
        inverse = self.inverse[rows]
        column = inverse[every, slot]
        pivot = column[every, slot]
        self.y[rows] -= column * (self.y[rows, slot] / pivot)[:, None]
        inverse.baddbmm_((-column / pivot[:, None])[:, :, None], column[:, None, :])
        inverse[every, slot] = 0
        inverse[every, :, slot] = 0
        self.inverse[rows] = inverse
        self.y[rows, slot] = 0
        self.weights[rows, slot] = 0
        self.used[rows, slot] = False

    def _grow(self) -> None:
        """Half as many slots again."""
        more = max(4, self.used.shape[1] // 2)
        pad = torch.nn.functional.pad
        self.shifted = pad(self.shifted, (0, 0, 0, more))
        self.inverse = pad(self.inverse, (0, more, 0, more))
        self.y, self.weights = pad(self.y, (0, more)), pad(self.weights, (0, more))
        self.used = pad(self.used, (0, more))

    def settled(self) -> "Settled":
        """The sets without idle vertices, and with as many slots as the largest has vertices."""
        while (idle := self.used & (self.weights <= 0)).any():
            rows = idle.any(dim=1).nonzero().squeeze(1)
            self._drop(rows, idle[rows].to(torch.uint8).argmax(dim=1))
        most = int(self.used.sum(dim=1).max()) if len(self.used) else 1
        kept = self.used.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        used = self.used.gather(1, kept)[:, :, None]
        vertices = self.shifted.gather(1, kept[:, :, None].expand(-1, -1, self.target.shape[1]))
        vertices.add_(self.target[:, None, :]).round_().mul_(used)
        inverse = self.inverse.gather(1, kept[:, :, None].expand(-1, -1, self.inverse.shape[2]))
        inverse = inverse.gather(2, kept[:, None, :].expand(-1, most, -1))
        y, weights = self.y.gather(1, kept)[:, :, None], self.weights.gather(1, kept)
        return Settled(kept, vertices, weights, inverse, y)

    def solution(
        self, scores: Float[Tensor, "B D"]
    ) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B M"]]:
        """Vertices, and probabilities differentiable in the scores.

        M is the most that any row has; the rest is padding.
        """
        _, vertices, weights, inverse, y = self.settled()
        return vertices, differentiable(vertices, weights, inverse, y, scores)


class Settled(NamedTuple):
    """The sets of all rows at the end; zeros beyond those of a row."""

    slot: Int[Tensor, "B M"]
    vertices: Float[Tensor, "B M D"]
    weights: Float[Tensor, "B M"]
    inverse: Float[Tensor, "B M M"]
    y: Float[Tensor, "B M 1"]
