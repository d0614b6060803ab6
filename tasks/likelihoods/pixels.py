"""The categorical likelihood of pixels: one linear map to the grey levels, and cross-entropy.

The numbers that the plain version holds, (N, P, L) logits, dwarf everything else in a model of
images: at N = 64 assignments of 784 pixels with 256 levels they fill 51 MB, several times over.
`pixel_nll` works through them in parts that stay in the cache, and takes value and gradients in
the same pass: the gradient of a softmax needs what its value needs. On the CPU the parts are four
pixels in compiled loops, elsewhere tiles in whole-tensor operations. Each assignment's share of
the weight's gradient is kept, (N, F + 1, L), as the weight of its cost is only known later.
"""

from types import ModuleType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from tasks.likelihoods.compiled import compiled

TILE = 2**18
"""Logits in a tile: 1 MiB in float32, which stays in the cache."""


def plain_pixel_nll(
    features: Float[Tensor, "N P F"],
    weight: Float[Tensor, "L F"],
    bias: Float[Tensor, " L"],
    target: Int64[Tensor, "N P"],
) -> Float[Tensor, " N"]:
    """The same as `pixel_nll`, by the library, holding all logits."""
    logits = F.linear(features, weight, bias)
    nll = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
    return nll.view(target.shape).sum(dim=1)


def pixel_nll(
    features: Float[Tensor, "N P F"],
    weight: Float[Tensor, "L F"],
    bias: Float[Tensor, " L"],
    target: Int64[Tensor, "N P"],
) -> Float[Tensor, " N"]:
    """−Σ_pixels log softmax(W h + b)[x], in nats.

    Args:
        features: h.
        weight, bias: W and b, shared by all pixels.
        target: x, grey levels 0 to L − 1.
    Returns:
        Differentiable once in features, weight and bias.
    Raises:
        IndexError: a grey level that is not one of these (RuntimeError in whole-tensor operations).
    """
    ones = features.new_ones(*features.shape[:2], 1)
    affine = torch.cat([weight, bias[:, None]], dim=1)
    nll: Tensor = _PixelNLL.apply(  # type: ignore[no-untyped-call]
        torch.cat([features, ones], dim=2), affine, target
    )
    return nll


class Solution(NamedTuple):
    """Costs of assignments, and their slopes where these are asked for; G = F + 1."""

    nll: Float[Tensor, " N"]
    h_slope: Float[Tensor, "N P G"] | None
    affine_slope: Float[Tensor, "N G L"] | None
    """Of Aᵀ."""


class _PixelNLL(torch.autograd.Function):
    """On h with a one appended and A = (W, b), both of width G = F + 1.

    With e = exp(A h − max) and its sum s over levels, the slopes are (Aᵀe)/s − A[x] for h and
    (e − s·1[x]) hᵀ/s for A.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h: Float[Tensor, "N P G"],
        affine: Float[Tensor, "L G"],
        target: Int64[Tensor, "N P"],
    ) -> Float[Tensor, " N"]:
        loops, graded = compiled("pixels", h, affine), any(ctx.needs_input_grad)
        found = (
            _in_tiles(h, affine, target, graded)
            if loops is None
            else _in_loops(loops, h, affine, target, graded)
        )
        ctx.save_for_backward(found.h_slope, found.affine_slope)
        return found.nll

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, weight: Float[Tensor, " N"]
    ) -> tuple[Float[Tensor, "N P G"], Float[Tensor, "L G"], None]:
        h_slope, affine_slope = ctx.saved_tensors
        scaled = weight[:, None, None] * h_slope
        return scaled, torch.einsum("n,nfl->lf", weight, affine_slope), None


def _in_loops(
    loops: ModuleType,
    h: Float[Tensor, "N P G"],
    affine: Float[Tensor, "L G"],
    target: Int64[Tensor, "N P"],
    graded: bool,
) -> Solution:
    """A few pixels at a time, compiled for the CPU."""
    pixels, levels = h.shape[1], len(affine)
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < levels:
        raise IndexError(f"a grey level that is none of 0 to {levels - 1}")
    missing = -pixels % loops.PIXELS
    if missing:  # zeros fill them up, which change no slope
        h, target = F.pad(h, (0, 0, 0, missing)), F.pad(target, (0, missing))
    arrays = (t.contiguous().numpy() for t in (h, affine.T, target))
    nll, *slopes = loops.pixel_nll(*arrays, graded)
    value = torch.from_numpy(nll)[:, :pixels].sum(dim=1)
    if not graded:
        return Solution(value, None, None)
    h_slope, affine_slope = (torch.from_numpy(slope) for slope in slopes)
    return Solution(value, h_slope[:, :pixels], affine_slope)


def _in_tiles(
    h: Float[Tensor, "N P G"],
    affine: Float[Tensor, "L G"],
    target: Int64[Tensor, "N P"],
    graded: bool,
) -> Solution:
    """In tiles of logits, on any device.

    Products are ordered so that the thin side comes first, (F + 1) rows by many columns: the other
    way round, the library is five times slower at these shapes.
    """
    count, pixels, size = h.shape
    levels = len(affine)
    rows, x = h.flatten(0, 1), target.flatten()
    columns = rows.T.contiguous()
    right, top = h.new_empty(len(rows), 1), h.new_empty(len(rows), 1)
    # With gradients one product gives Aᵀe and the normaliser s, which is the last row.
    summing = torch.cat([affine.T, affine.new_ones(1, levels)])
    sums = h.new_empty(size + 1 if graded else 1, len(rows))
    total = sums[-1]
    affine_slope = h.new_empty(count, size, levels) if graded else None
    at_once = max(1, TILE // (pixels * levels))
    # What is not of the size of a tile waits until after the loop: a call takes its time too.
    for start in range(0, count, at_once):
        stop = min(start + at_once, count)
        part = slice(start * pixels, stop * pixels)
        e = rows[part] @ affine.T
        torch.gather(e, 1, x[part, None], out=right[part])
        torch.amax(e, dim=1, keepdim=True, out=top[part])
        e.sub_(top[part]).exp_()
        sums[:, part] = summing @ e.T if graded else e.sum(dim=1)
        if affine_slope is not None:
            scaled = (columns[:, part] / total[part]).view(size, -1, pixels).transpose(0, 1)
            e = e.view(-1, pixels, levels)
            torch.bmm(scaled.contiguous(), e, out=affine_slope[start:stop])
    nll = (top[:, 0] + total.log() - right[:, 0]).view(count, pixels).sum(dim=1)
    if affine_slope is None:
        return Solution(nll, None, None)
    h_slope = ((sums[:-1] / total).T - affine[x]).view_as(h)
    index = target[:, None, :].expand(-1, size, -1)
    affine_slope.scatter_add_(2, index, -h.transpose(1, 2))
    return Solution(nll, h_slope, affine_slope)
