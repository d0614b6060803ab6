"""A network from a number to a number, applied to every entry of a tensor alone.

    y = ⟨v, σ(x w)⟩

With H hidden units and N entries the library's layers write N × H numbers some ten times over to
memory: 34 MB each for 64 rows of 256 entries and 512 units. `pointwise` works in parts that stay in
the cache, and computes the hidden units again in the backward pass, which is cheaper than fetching
them: on the CPU a number at a time in compiled loops, elsewhere in tiles.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from tasks.likelihoods.compiled import compiled

TILE = 2**17
"""Hidden units in a tile: half a MiB in float32."""


def plain_pointwise(
    x: Float[Tensor, "*S"], w: Float[Tensor, " H"], v: Float[Tensor, " H"]
) -> Float[Tensor, "*S"]:
    """The same as `pointwise`, by the library, holding all hidden units."""
    return (x[..., None] * w).sigmoid() @ v


def pointwise(
    x: Float[Tensor, "*S"], w: Float[Tensor, " H"], v: Float[Tensor, " H"]
) -> Float[Tensor, "*S"]:
    """⟨v, σ(x w)⟩ of every entry, differentiable once in all arguments."""
    y: Tensor = _Pointwise.apply(x.flatten(), w, v)  # type: ignore[no-untyped-call]
    return y.view_as(x)


class _Pointwise(torch.autograd.Function):
    """With h = σ(x w) and d = h (1 − h), the slopes are v for h, and v d for its argument."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, " N"], w: Float[Tensor, " H"], v: Float[Tensor, " H"]
    ) -> Float[Tensor, " N"]:
        ctx.save_for_backward(x, w, v)
        loops = compiled("pointwise", x, w, v)
        if loops is None:
            return torch.cat([_hidden(part, w) @ v for part in _tiles(x, w)])
        arrays = (t.detach().contiguous().numpy() for t in (x, w, v))
        return torch.from_numpy(loops.forward(*arrays))

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, slope: Float[Tensor, " N"]
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " H"], Float[Tensor, " H"]]:
        x, w, v = ctx.saved_tensors
        loops = compiled("pointwise", x, w, v)
        if loops is None:
            return _slopes_in_tiles(x, w, v, slope)
        arrays = (t.detach().contiguous().numpy() for t in (x, w, v, slope))
        x_slope, w_slope, v_slope = loops.backward(*arrays)
        return torch.from_numpy(x_slope), torch.from_numpy(w_slope), torch.from_numpy(v_slope)


def _slopes_in_tiles(
    x: Float[Tensor, " N"],
    w: Float[Tensor, " H"],
    v: Float[Tensor, " H"],
    slope: Float[Tensor, " N"],
) -> tuple[Float[Tensor, " N"], Float[Tensor, " H"], Float[Tensor, " H"]]:
    through_w = v * w
    x_slope, w_slope, v_slope = [], torch.zeros_like(w), torch.zeros_like(v)
    for part, own in zip(_tiles(x, w), _tiles(slope, w), strict=True):
        h = _hidden(part, w)
        v_slope += own @ h
        d = h.addcmul_(h, h, value=-1)
        x_slope.append((d @ through_w).mul_(own))
        w_slope += (own * part) @ d
    return torch.cat(x_slope), w_slope * v, v_slope


def _tiles(x: Float[Tensor, " N"], w: Float[Tensor, " H"]) -> tuple[Float[Tensor, " T"], ...]:
    return x.split(max(1, TILE // len(w)))


def _hidden(x: Float[Tensor, " N"], w: Float[Tensor, " H"]) -> Float[Tensor, "N H"]:
    return torch.outer(x, w).sigmoid_()
