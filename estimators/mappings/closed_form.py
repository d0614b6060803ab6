"""SparseMAP for bit-vectors in closed form: marginals, and two distributions that have them.

The projection of the scores on the hull of the bit-vectors is a clipped shift of them. The
decompositions are deterministic, have at most one vertex more than there are fractional
marginals, and depend linearly on them, so that autograd gives the exact Jacobian.
"""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from estimators.mappings.finite import check_finite, mapping
from estimators.mappings.support import least

Parametrisation = Literal["pairs", "single"]

_SNAP = 1e-12
"""A fractional part this close to an integer, for every bit that is summed, is rounding (all of it
is done in float64)."""


def single_scores(
    scores: Float[Tensor, "B D"], parametrisation: Parametrisation
) -> Float[Tensor, "B D"]:
    """The scores of the problem with one variable a bit: (1 + η) / 2 for "pairs"."""
    return (1 + scores) / 2 if parametrisation == "pairs" else scores


@mapping
def bit_marginals(
    scores: Float[Tensor, "B D"],
    budget: int | None = None,
    parametrisation: Parametrisation = "pairs",
) -> Float[Tensor, "B D"]:
    """The SparseMAP marginals of D bits, at most `budget` of them on.

    With one variable a bit ("single") they are argmin_μ ½‖μ − η‖² on the cube, or on the cube
    cut by Σμ ≤ budget: clip(η − τ, 0, 1), with τ ≥ 0 zero unless the budget binds. With a pair of
    variables a bit, on (score η) and off (score 0), as Correia et al. 2020 have it ("pairs"), they
    are those of the single problem at (1 + η) / 2.

    Args:
        scores: of any floating dtype; the work is done in float64.
        budget: most bits on, or None for no bound.
        parametrisation: "pairs" (the paper's) or "single".
    Returns:
        Differentiable in the scores.
    Raises:
        TypeError: the scores are no floating-point numbers.
        ValueError: a score is not finite, or the budget is negative.
    """
    check_finite(scores)
    shifted = single_scores(scores.double(), parametrisation)
    return single_marginals(shifted, budget).to(scores.dtype)


@mapping
def subset_marginals(scores: Float[Tensor, "B D"], chosen: int) -> Float[Tensor, "B D"]:
    """The SparseMAP marginals of D bits of which exactly `chosen` are on.

    The projection on the cube cut by Σμ = chosen: clip(η − τ, 0, 1). A pair of variables a bit
    would halve the scores, and no more.

    Args:
        scores: of any floating dtype; the work is done in float64.
        chosen: 1 to D.
    Returns:
        Differentiable in the scores.
    Raises:
        TypeError: the scores are no floating-point numbers.
        ValueError: a score is not finite, or `chosen` is out of range.
    """
    check_finite(scores)
    if not 1 <= chosen <= scores.shape[1]:
        raise ValueError(f"{chosen} bits of {scores.shape[1]} were asked for: take 1 to all")
    return _project_on_budget(scores.double(), chosen).to(scores.dtype)


def single_marginals(shifted: Float64[Tensor, "B D"], budget: int | None) -> Float64[Tensor, "B D"]:
    """Those of finite scores of the problem with one variable a bit.

    A marginal has a derivative where it is fractional, and only there.
    """
    if budget is None or budget >= shifted.shape[1]:
        return _clipped(shifted, 0)
    if budget < 0:
        raise ValueError(f"the budget is {budget}: take 0 or more bits")
    snap = _SNAP * shifted.shape[1]
    marginals = _clipped(shifted, snap)
    binds = marginals.sum(dim=1, keepdim=True) >= budget - snap
    return torch.where(binds, _project_on_budget(shifted, budget), marginals)


def _clipped(shifted: Float64[Tensor, "B D"], snap: float) -> Float64[Tensor, "B D"]:
    """Clipped to [0, 1], to either end within a distance of it."""
    detached = shifted.detach()
    fractional = (detached > snap) & (detached < 1 - snap)
    return torch.where(fractional, shifted, (detached > 0.5).to(shifted.dtype))


def decompose(
    marginals: Float64[Tensor, "B D"], budget: int | None, dtype: torch.dtype
) -> tuple[Float[Tensor, "B D+1 D"], Float64[Tensor, "B D+1"]]:
    """Vertices in `dtype`, and probabilities, of marginals.

    Exact but for rounding, where the dtype can count to D. Without a budget the vertices are
    nested, with one they are those of systematic sampling.
    """
    if budget is None or budget >= marginals.shape[1]:
        return _nested(marginals, dtype)
    return _systematic(marginals, budget, dtype)


def _project_on_budget(shifted: Float64[Tensor, "B D"], budget: int) -> Float64[Tensor, "B D"]:
    """clip(s − τ, 0, 1) with τ such that it sums to the budget.

    Σ clip(s − τ, 0, 1) falls piecewise linearly in τ, with kinks at s and s − 1: the segment
    that holds the budget tells which marginals are fractional, and τ follows from their sum.

    With c the budget's last score from the top, τ is in [c − 1, c). Scores are taken from c, beyond
    ±1 of which a bit is on or off: what they have in common, or how far they go, costs no digits.
    """
    size = shifted.shape[1]
    last_within = shifted.detach().topk(max(budget, 1), dim=1).values[:, -1:]
    shifted = (shifted - last_within).clamp(-1, 1)
    detached = shifted.detach()
    kinks, order = torch.cat([detached - 1, detached], dim=1).sort(dim=1)
    slopes = torch.where(order < size, -1.0, 1.0).to(kinks.dtype).cumsum(dim=1)
    falls = (slopes[:, :-1] * kinks.diff(dim=1)).cumsum(dim=1)
    sums = size + torch.cat([torch.zeros_like(kinks[:, :1]), falls], dim=1)
    last = (sums >= budget).sum(dim=1, keepdim=True) - 1
    middle = (kinks.gather(1, last) + kinks.gather(1, (last + 1).clamp(max=kinks.shape[1] - 1))) / 2
    fractional = (detached > middle) & (detached < middle + 1)
    tau = _threshold(detached, fractional, detached >= middle + 1, budget, middle)
    # What is left within rounding of 0 or 1 is there.
    values, snap = detached - tau, _SNAP * size
    on = values >= 1 - snap
    fractional = (values > snap) & ~on
    tau = _threshold(shifted, fractional, on, budget, middle)
    return torch.where(fractional, shifted - tau, on.to(shifted.dtype))


def _threshold(
    shifted: Float64[Tensor, "B D"],
    fractional: Bool[Tensor, "B D"],
    on: Bool[Tensor, "B D"],
    budget: int,
    otherwise: Float64[Tensor, "B 1"],
) -> Float64[Tensor, "B 1"]:
    """τ, so that s − τ of those that are fractional is what those that are on leave."""
    count = fractional.sum(dim=1, keepdim=True)
    total = (shifted * fractional).sum(dim=1, keepdim=True)
    left = total + on.sum(dim=1, keepdim=True) - budget
    return torch.where(count > 0, left / count.clamp(min=1), otherwise)


def _nested(
    marginals: Float64[Tensor, "B D"], dtype: torch.dtype
) -> tuple[Float[Tensor, "B D+1 D"], Float64[Tensor, "B D+1"]]:
    """Vertices that switch the bits on from the largest marginal to the smallest.

    With μ sorted downwards, vertex j (the first j bits on) has probability μ_j − μ_{j+1}, where
    μ_0 = 1 and μ_{D+1} = 0.
    """
    ranked, order = marginals.detach().sort(dim=1, descending=True)
    edges = torch.nn.functional.pad(ranked, (1, 1))
    edges[:, 0] = 1
    probabilities: Tensor = _Differences.apply(  # type: ignore[no-untyped-call]
        marginals, edges, order, least(dtype)
    )
    return _reached(_ranks(order), dtype), probabilities


class _Differences(torch.autograd.Function):
    """Of neighbouring edges, which are the sorted marginals between 1 and 0.

    Two marginals that are equal and can move have a vertex between them, of the least probability:
    without it no derivatives of the others would add up to theirs.

    What autograd does for it in a dozen small operations takes longer than everything else.
    """

    @staticmethod
    def forward(
        ctx: Any,
        marginals: Float[Tensor, "B D"],
        edges: Float[Tensor, "B D+2"],
        order: Int[Tensor, "B D"],
        least: float,
    ) -> Float[Tensor, "B D+1"]:
        ctx.save_for_backward(order)
        above, below = edges[:, :-1], edges[:, 1:]
        moves = (above > 0) & (below < 1)
        return torch.maximum(above - below, least * moves.to(above.dtype))

    @staticmethod
    def backward(
        ctx: Any, slope: Float[Tensor, "B V"]
    ) -> tuple[Float[Tensor, "B V-1"], None, None, None]:
        (order,) = ctx.saved_tensors
        ranked = slope[:, 1:] - slope[:, :-1]
        return torch.empty_like(ranked).scatter(1, order, ranked), None, None, None


def _systematic(
    marginals: Float64[Tensor, "B D"], budget: int, dtype: torch.dtype
) -> tuple[Float[Tensor, "B D+1 D"], Float64[Tensor, "B D+1"]]:
    """Vertices of systematic sampling (Madow 1949): each has ⌊Σμ⌋ or ⌈Σμ⌉ bits on.

    Lay intervals of lengths μ_i end to end; for u uniform in [0, 1) switch on the bits whose
    interval holds one of u, u + 1, u + 2, … The vertex changes where u passes the fractional
    part of an interval's end, but of the last end where the budget holds it to a whole number; the
    distance to the next such place is its probability. Of a bit between ends S' and S that is

        ⌊S⌋ − ⌊S'⌋ + [u < S − ⌊S⌋] − [u < S' − ⌊S'⌋]

    which needs the order of these places alone, so that where some coincide each of the vertices
    between them is there, of the least probability.
    """
    ranked, order = marginals.sort(dim=1, descending=True)
    ends, snap = ranked.cumsum(dim=1), _SNAP * ranked.shape[1]
    whole = (ends.detach() + snap).floor()
    inside = (ranked.detach() > 0) & (ranked.detach() < 1)
    last = (ranked.detach() > 0).sum(dim=1, keepdim=True) - 1
    held = ends.detach()[:, -1:] >= budget - snap / 2
    inside = inside & ~(held & (torch.arange(ranked.shape[1], device=last.device) == last))

    offsets = torch.where(inside, ends - whole, 1)
    offsets = offsets + (offsets.detach().clamp(min=0) - offsets.detach())
    sorted_offsets, places = torch.where(inside, offsets, 2).sort(dim=1, stable=True)
    one, zero = ranked.new_ones(len(ranked), 1), ranked.new_zeros(len(ranked), 1)
    breaks = torch.cat([zero, torch.where(sorted_offsets < 2, sorted_offsets, 1), one], dim=1)
    gaps = breaks.diff(dim=1)
    count = inside.sum(dim=1, keepdim=True)
    used = torch.arange(gaps.shape[1], device=count.device) <= count
    probabilities = gaps + ((gaps.detach().clamp(min=least(dtype)) * used) - gaps.detach())

    # The number of a bit's own place, and of that before it: of neither where it does not change.
    own = torch.where(inside, _ranks(places), -1)
    before = torch.nn.functional.pad(own[:, :-1], (1, 0), value=-1)
    steps = torch.nn.functional.pad(whole, (1, 0)).diff(dim=1)
    fixed = (ranked.detach() <= 0) | (ranked.detach() >= 1)
    own, before = torch.where(fixed, -1, own), torch.where(fixed, -1, before)
    steps = torch.where(fixed, ranked.detach(), steps)
    back = _ranks(order)
    own, before, steps = (part.gather(1, back) for part in (own, before, steps))
    vertices, scratch = _reached(before, dtype), _reached(own, dtype)
    vertices.sub_(scratch).add_(steps[:, None, :].to(dtype)).clamp_(0, 1)
    return vertices, probabilities


def _ranks(order: Int[Tensor, "B D"]) -> Int[Tensor, "B D"]:
    """The place of each bit in a sorted order, which holds the bit at each place."""
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def _reached(
    place: Int[Tensor, "B D"],
    dtype: torch.dtype,
    out: Float[Tensor, "B D+1 D"] | None = None,
) -> Float[Tensor, "B D+1 D"]:
    """One where the vertex's number is above a bit's place, else zero."""
    rows, size = place.shape
    number = torch.arange(size + 1, device=place.device, dtype=dtype)[:, None]
    if out is None:
        out = torch.empty(rows, size + 1, size, dtype=dtype, device=place.device)
    return torch.lt(place.to(dtype)[:, None, :], number, out=out)
