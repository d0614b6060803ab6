"""SparseMAP for any structure with a maximisation oracle: the active-set method far from the hull.

    μ* = argmin_μ ½‖μ − s‖²  over the convex hull of the structures

(Niculae et al. 2018; the steps are those of `active_set`.) Scores may be as large as they like next
to vertices, which V − s would round away. So all is relative to a vertex v₀, the best for s: with
d = v − v₀ and c = ⟨s − v₀, d⟩ the weights minimise ½‖Σ p d‖² − Σ p c. The products ⟨d, d'⟩ are
whole numbers, and c of a vertex that is of any use is no larger than these: ⟨s, d⟩ is at most zero,
and ⟨s − μ, d⟩ no less for v than for the set. Large numbers cancel in ⟨s, d⟩ alone, where they are
summed exactly; and a part that every vertex has, or lacks, because a score of −10⁹ forbids it,
takes no part.

The gap ⟨s − μ, v − μ⟩ of the best vertex v is a bound on ‖μ − μ*‖²: strong convexity gives an
inequality at μ and one at μ*, and this is their sum.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Float64, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from estimators.mappings.active_set import DEPENDENT, Solver, moved
from estimators.mappings.finite import check_finite, mapping
from estimators.mappings.kept import compiled_loops
from estimators.mappings.support import narrowed

Oracle = Callable[[Float[Tensor, "B D"]], Shaped[Tensor, "B ..."]]
"""From scores to the structure of highest score in each row."""

Indicators = Callable[[Shaped[Tensor, "B ..."]], Float64[Tensor, "B D"]]
"""From structures as the oracle gives them to zeros and ones."""

NUDGE = 2.0**-36
"""Most that a score is moved by for the oracle to choose between vertices that tie."""

ROUNDING = 2.0**-44
"""For each one of a vertex, a gap that is none."""

SLOTS = 16
"""Vertices of a row that there is room for at first."""


class ActiveSetSolution(NamedTuple):
    """A distribution over a few structures whose mean is (nearly) the SparseMAP marginals."""

    vertices: Shaped[Tensor, "B M ..."]
    """As the oracle gives them; distinct where the probability is positive."""
    probabilities: Float[Tensor, "B M"]
    """Differentiable in the scores; zero for padding."""
    marginals: Float[Tensor, "B D"]
    """The mean of the vertices, differentiable in the scores."""
    residual: Float[Tensor, " B"]
    """A bound on ‖marginals − μ*‖₂, but for what the oracle loses to rounding."""
    converged: Bool[Tensor, " B"]
    """The residual is within the tolerance, as far as float64 can tell."""


def as_they_are(vertices: Float[Tensor, "B D"]) -> Float64[Tensor, "B D"]:
    """Structures that are indicators."""
    return vertices.double()


@mapping
def sparsemap(
    scores: Float[Tensor, "B D"],
    oracle: Oracle,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    indicators: Indicators = as_they_are,
) -> ActiveSetSolution:
    """SparseMAP for a structure that is given by its oracle.

    The probabilities solve the problem on the affine hull of the final set, on which they depend
    linearly, so that first derivatives are those of the set and second derivatives are zero. A set
    that spans less than the face that μ* lies in gives a projection of the Jacobian.

    Args:
        scores: s, of any floating dtype; the work is done in float64.
        oracle: finds the best structure of each row; called with float64 scores of the rows that
            are not done. What rounding hides from it, some 10⁻¹⁶ of a structure's score, it may
            miss.
        tolerance: on the residual, which is √(duality gap). Below 2·10⁻⁷ √(1 + ones of a vertex)
            it is that, as far as float64 can tell; the marginals are nearer by some digits.
        max_iterations: vertices looked at, at most; a row that needs more is not converged.
        indicators: of the structures.
    Raises:
        TypeError: the scores are no floating-point numbers.
        ValueError: a score is not finite.
    """
    check_finite(scores)
    target, dtype = scores.detach().double(), scores.dtype

    def best(of: Float64[Tensor, "R D"]) -> Float64[Tensor, "R D"]:
        found = oracle(of)
        answers.append(found.to(dtype) if found.is_floating_point() else found)
        return indicators(found)

    answers: list[Tensor] = []
    compiled = scores.device.type == "cpu" and compiled_loops(_LOOPS) is not None
    kind: type[Sets] = RowByRow if compiled else SideBySide
    first = best(target)
    sets = kind(target, first, _nudge(target))
    within = (ROUNDING * (1 + first.sum(dim=1))).clamp(min=tolerance**2)
    rows, asked = torch.arange(len(target), device=target.device), len(target)
    for step in range(max_iterations + 1):
        if not len(rows):
            break
        points, names = best(sets.directions(rows)), asked + torch.arange(len(rows)).to(rows)
        rows = rows[sets.advance(rows, points, names, within, step < max_iterations)]
        asked += len(names)
    names, ones, weights, inverse, y = sets.found()
    # What a vertex has beside its ones is a column of zeros.
    shift, places = F.pad(scores.double() - target, (0, 1)), ones.flatten(1)
    change = shift.gather(1, places).view_as(ones).sum(dim=2)
    probabilities = moved(weights, inverse, y[:, :, None], change)
    each = probabilities[:, :, None].expand_as(ones).flatten(1)
    marginals = torch.zeros_like(shift).scatter_add(1, places, each)[:, :-1]
    return ActiveSetSolution(
        torch.cat(answers)[names],
        narrowed(probabilities, dtype),
        marginals.to(dtype),
        sets.gap.sqrt().to(dtype),
        sets.gap <= within,
    )


_LOOPS = "estimators.mappings.compiled.structures"


def _nudge(like: Float64[Tensor, "B D"]) -> Float64[Tensor, " D"]:
    """What every score is moved by, so that vertices never tie.

    The direction is at right angles to the differences of a set's vertices, so that others tie
    again and again; rounding would choose between them, and choose otherwise for scores next to
    these.
    """
    number = torch.arange(1, like.shape[1] + 1, dtype=like.dtype, device=like.device)
    return NUDGE * (0.6180339887498949 * number.square()).frac()


def in_two(scores: Float64[Tensor, "B D"]) -> tuple[Float64[Tensor, "B D"], Float64[Tensor, "B D"]]:
    """Scores as sums of two: whole multiples of a number that is so large that any sum of them is
    exact, and what is left."""
    _, exponent = torch.frexp(scores.abs().amax(dim=1, keepdim=True))
    unit = torch.ldexp(torch.ones_like(scores[:, :1]), exponent + scores.shape[1].bit_length() - 53)
    coarse = (scores / unit).round() * unit
    return coarse, scores - coarse


class Found(NamedTuple):
    """The final sets."""

    names: Int[Tensor, "B M"]
    ones: Int[Tensor, "B M K"]
    """Where the vertices have them; D for none."""
    weights: Float64[Tensor, "B M"]
    inverse: Float64[Tensor, "B M M"]
    y: Float64[Tensor, "B M"]


class Sets(Protocol):
    """The active sets of all rows, each of which starts with its first vertex alone, named by the
    number of the row."""

    @property
    def gap(self) -> Float64[Tensor, " B"]:
        """Bounds on the duality gaps."""

    def __init__(
        self,
        scores: Float64[Tensor, "B D"],
        first: Float64[Tensor, "B D"],
        nudge: Float64[Tensor, " D"],
    ) -> None: ...

    def directions(self, rows: Int[Tensor, " R"]) -> Float64[Tensor, "R D"]:
        """What the oracle is to be asked for some rows: s − μ, nudged at first."""

    def advance(
        self,
        rows: Int[Tensor, " R"],
        points: Float64[Tensor, "R D"],
        names: Int[Tensor, " R"],
        within: Float64[Tensor, " B"],
        may_add: bool,
    ) -> Bool[Tensor, " R"]:
        """A step of some rows with the vertices that the oracle named; which of them go on.

        A row is done when its gap, and what the nudge may have added to it, is `within`. One that
        can't use its vertex goes on without the nudge, and else ends as it is: all do where none
        may be added.
        """

    def found(self) -> Found:
        """The sets without idle vertices."""


class RowByRow:
    """By the compiled loops."""

    def __init__(
        self,
        scores: Float64[Tensor, "B D"],
        first: Float64[Tensor, "B D"],
        nudge: Float64[Tensor, " D"],
    ) -> None:
        loops = compiled_loops(_LOOPS)
        assert loops is not None
        self.loops, self.scores, self.nudge = loops, scores.numpy(), nudge.numpy()
        coarse, fine = (part.numpy() for part in in_two(scores))
        self.sets = loops.start(coarse, fine, first.contiguous().numpy(), SLOTS)

    @property
    def gap(self) -> Float64[Tensor, " B"]:
        return torch.from_numpy(self.sets.gap)

    def directions(self, rows: Int[Tensor, " R"]) -> Float64[Tensor, "R D"]:
        found = self.loops.directions(self.sets, rows.numpy(), self.scores, self.nudge)
        return torch.from_numpy(found)

    def advance(
        self,
        rows: Int[Tensor, " R"],
        points: Float64[Tensor, "R D"],
        names: Int[Tensor, " R"],
        within: Float64[Tensor, " B"],
        may_add: bool,
    ) -> Bool[Tensor, " R"]:
        sets, loops, vertices = self.sets, self.loops, points.contiguous().numpy()
        slots, width = sets.ones.shape[1:]
        if sets.counts[rows.numpy()].max() == slots:
            slots += max(4, slots // 2)
        width = max(width, loops.most_ones(vertices))
        if (slots, width) != sets.ones.shape[1:]:
            self.sets = sets = loops.with_room(sets, slots, width)
        goes_on = loops.advance(
            sets, rows.numpy(), vertices, names.numpy(), self.nudge, within.numpy(), may_add,
            DEPENDENT,
        )  # fmt: skip
        return torch.from_numpy(goes_on)

    def found(self) -> Found:
        sets = self.sets
        self.loops.finish(sets)
        most = sets.counts.max(initial=1)
        parts = (
            sets.names[:, :most], sets.ones[:, :most], sets.weights[:, :most],
            sets.inverse[:, :most, :most], sets.y[:, :most],
        )  # fmt: skip
        return Found(*(torch.from_numpy(part) for part in parts))


class SideBySide(Solver):
    """In whole-tensor operations, on any device."""

    def __init__(
        self,
        scores: Float64[Tensor, "B D"],
        first: Float64[Tensor, "B D"],
        nudge: Float64[Tensor, " D"],
    ) -> None:
        super().__init__(first, first)
        self.scores, self.nudge, self.parts = scores, nudge, in_two(scores)
        self.gains = torch.zeros_like(self.weights)
        self.names = torch.zeros_like(self.used, dtype=torch.int64)
        self.names[:, 0] = self.offered = self.rows
        self.exactly = torch.zeros_like(self.used[:, 0])
        self.gap = scores.new_zeros(len(scores))

    def directions(self, rows: Int[Tensor, " R"]) -> Float64[Tensor, "R D"]:
        mean = self.point()[rows] + self.target[rows]
        return self.scores[rows] - mean + self.nudge * ~self.exactly[rows, None]

    def advance(
        self,
        rows: Int[Tensor, " R"],
        points: Float64[Tensor, "R D"],
        names: Int[Tensor, " R"],
        within: Float64[Tensor, " B"],
        may_add: bool,
    ) -> Bool[Tensor, " R"]:
        vertices = self.target.clone()
        vertices[rows] = points
        self.offered = torch.zeros_like(self.rows)
        self.offered[rows] = names
        u, mean = vertices - self.target, self.point()
        level = (self.weights * self.gains).sum(dim=1) - mean.square().sum(dim=1)
        gap = (self._gain(u, self.rows) - (mean * u).sum(dim=1) - level)[rows].clamp(min=0)
        slack = torch.where(self.exactly[rows], 0, points @ self.nudge)
        self.gap[rows] = gap + slack
        far = gap + slack > within[rows]
        wanted = torch.zeros_like(self.exactly)
        wanted[rows] = far & (gap > within[rows]) & may_add
        self.add(vertices, wanted)
        grew = (self.used[rows] & (self.names[rows] == names[:, None])).any(dim=1)
        goes_on = far & (grew | (may_add & ~self.exactly[rows]))
        self.exactly[rows] |= far & ~grew
        return goes_on

    def _gain(self, u: Float64[Tensor, "R D"], rows: Int[Tensor, " R"]) -> Float64[Tensor, " R"]:
        """⟨s − v₀, d⟩."""
        coarse, fine = (part[rows] for part in self.parts)
        return (coarse * u).sum(dim=1) + ((fine - self.target[rows]) * u).sum(dim=1)

    def _put(
        self, rows: Int[Tensor, " R"], slot: Int[Tensor, " R"], u: Float[Tensor, "R D"]
    ) -> None:
        super()._put(rows, slot, u)
        self.gains[rows, slot] = self._gain(u, rows)
        self.names[rows, slot] = self.offered[rows]

    def _best(self, rows: Int[Tensor, " R"] | slice) -> Float[Tensor, "R M"]:
        best = torch.bmm(self.inverse[rows], self.gains[rows][:, :, None]).squeeze(2)
        y = self.y[rows]
        missing = 1 - best.sum(dim=1, keepdim=True)
        return best + y * (missing / y.sum(dim=1, keepdim=True))

    def _grow(self) -> None:
        super()._grow()
        more = self.used.shape[1] - self.names.shape[1]
        self.gains, self.names = F.pad(self.gains, (0, more)), F.pad(self.names, (0, more))

    def found(self) -> Found:
        slot, vertices, weights, inverse, y = self.settled()
        size = vertices.shape[2]
        width = int(vertices.sum(dim=2).amax()) if vertices.numel() else 1
        ones = vertices.sort(dim=2, descending=True, stable=True)
        lists = ones.indices.where(ones.values > 0, size)[:, :, :width]
        return Found(self.names.gather(1, slot), lists, weights, inverse, y.squeeze(2))
