"""SparseMAP over bit-vectors (Niculae et al. 2018; Correia et al. 2020, section 4.2).

The marginals are unique and known in closed form. A distribution over bit-vectors that has them
is not unique: three solvers give three.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from estimators.mappings.active_set import Solver, differentiable, on_its_support, snapped
from estimators.mappings.closed_form import (
    Parametrisation,
    decompose,
    single_marginals,
    single_scores,
)
from estimators.mappings.finite import check_finite, mapping
from estimators.mappings.kept import compiled_loops
from estimators.mappings.lp_sparsemap import reference_solution
from estimators.mappings.structures import Oracle
from estimators.mappings.support import narrowed

BitSolver = Literal["active-set", "closed-form", "lp-sparsemap"]

_FRACTIONAL = 1e-9


@dataclass(frozen=True)
class SparseSolution:
    """A distribution over bit-vectors with few vertices."""

    vertices: Float[Tensor, "B M D"]
    """Zeros and ones; distinct within a row where the probability is positive."""
    probabilities: Float[Tensor, "B M"]
    """Differentiable in the scores; zero for padding. Second derivatives are zero."""
    marginals: Float[Tensor, "B D"]
    """The exact SparseMAP marginals, in [0, 1], differentiable in the scores."""
    residual: Float[Tensor, " B"]
    """‖expected vertex − marginals‖₂; 0 for the closed form, which is exact."""
    budget: int | None
    """Most bits on in a vertex."""
    unrounded: Float64[Tensor, "B D"]
    """The marginals, without gradient."""

    @property
    def truncated(self) -> Bool[Tensor, " B"]:
        """The vertices span less than the face that the marginals lie in, so that the Jacobian of
        the expected vertex is a projection of the marginals'."""
        marginals = self.unrounded
        dimension = ((marginals > _FRACTIONAL) & (marginals < 1 - _FRACTIONAL)).sum(dim=1)
        if self.budget is not None:  # a budget that binds takes a dimension off the face
            dimension = dimension - (_binds(marginals, self.budget) & (dimension > 0)).long()
        return (self.probabilities > 0).sum(dim=1) < dimension + 1


@mapping
def sparsemap_bits(
    scores: Float[Tensor, "B D"],
    budget: int | None = None,
    parametrisation: Parametrisation = "pairs",
    solver: BitSolver = "active-set",
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
) -> SparseSolution:
    """SparseMAP over bit-vectors, at most `budget` of them on.

    Args:
        scores: η, of any floating dtype; the work is done in float64.
        budget: most bits on in any vertex, or None.
        parametrisation: "pairs" (the paper's) or "single"; see `bit_marginals`.
        solver: "active-set", the published method from a deterministic start, which meets the
            tolerance with far fewer vertices than D + 1; "closed-form", exact, with nested vertices
            (systematic sampling's with a budget); "lp-sparsemap", the reference, without budget.
        tolerance: on the residual, for the active-set method.
        max_iterations: of the active-set method; a row that needs more keeps its residual.
    Raises:
        TypeError: the scores are no floating-point numbers.
        ValueError: a score is not finite, the budget is negative, or the solver can't do it.
        RuntimeError: lp-sparsemap was asked for and is not there.
    """
    check_finite(scores)
    shifted = single_scores(scores.double(), parametrisation)
    marginals = single_marginals(shifted, budget)
    if solver == "closed-form":
        exact = torch.promote_types(scores.dtype, torch.float32)  # it counts bits
        vertices, probabilities = decompose(marginals, budget, exact)
    elif solver == "active-set":
        vertices, probabilities = _active_set(
            shifted, marginals.detach(), budget, tolerance, max_iterations
        )
    else:
        if budget is not None or parametrisation != "pairs":
            raise ValueError("lp-sparsemap gives distributions for pairs without a budget only")
        vertices, weights = reference_solution(scores.detach().double())
        vertices, probabilities = on_its_support(vertices, weights, shifted)
    unrounded, dtype = marginals.detach(), scores.dtype
    residual = torch.zeros(len(scores), dtype=dtype, device=scores.device)
    if solver != "closed-form":
        mean = torch.einsum("bm,bmd->bd", probabilities.detach(), vertices)
        residual = (mean - unrounded).norm(dim=1).to(dtype)
    return SparseSolution(
        vertices=vertices.to(dtype),
        probabilities=narrowed(probabilities, dtype),
        marginals=marginals.to(dtype),
        residual=residual,
        budget=budget,
        unrounded=unrounded,
    )


def _active_set(
    scores: Float64[Tensor, "B D"],
    marginals: Float64[Tensor, "B D"],
    budget: int | None,
    tolerance: float,
    max_iterations: int,
) -> tuple[Float64[Tensor, "B M D"], Float64[Tensor, "B M"]]:
    """The active-set method on the face that the marginals lie in, with them as the target.

    The scores differ from the marginals by a normal of that face, so that any set of its vertices
    has the same best combination for both, and with the marginals known the residual is exact.

    Returns:
        vertices, and probabilities differentiable in the scores.
    """
    on_cpu = marginals.device.type == "cpu"
    kernel = compiled_loops("estimators.mappings.compiled.bits") if on_cpu else None
    if kernel is None:
        return _side_by_side(marginals, budget, tolerance, max_iterations).solution(scores)
    limit = marginals.shape[1] if budget is None else budget
    binds = _binds(marginals, limit).numpy()  # where all bits are on, that changes nothing
    sets = kernel.active_sets(marginals.numpy(), limit, binds, tolerance, max_iterations)
    vertices, weights, inverse, y = (torch.from_numpy(part) for part in sets)
    return vertices, differentiable(vertices, weights, inverse, y[:, :, None], scores)


def _side_by_side(
    marginals: Float64[Tensor, "B D"], budget: int | None, tolerance: float, max_iterations: int
) -> Solver:
    """All rows in whole-tensor operations, on any device."""
    # Ties go to the vertex nearer to the marginals. Bits that are off, or on, in the whole face are
    # among them: the mean is exact there from the start.
    nearer = marginals - 0.5
    oracle = _best if budget is None else _best_within(marginals, budget)
    solver = Solver(marginals, oracle(nearer))
    for _ in range(max_iterations):
        direction = solver.point()
        wanted = direction.square().sum(dim=1) > tolerance**2
        if not solver.add(oracle(nearer - snapped(direction)), wanted):
            break
    return solver


def _binds(marginals: Float64[Tensor, "B D"], budget: int) -> Bool[Tensor, " B"]:
    """Whether the marginals take up the whole budget."""
    return (marginals.sum(dim=1) - budget).abs() < _FRACTIONAL


def _best(direction: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    return (direction > 0).to(direction.dtype)


def _best_within(marginals: Float64[Tensor, "B D"], budget: int) -> Oracle:
    """The best vertex of the face of the marginals, where at most `budget` bits are on."""
    off, on = marginals <= 0, marginals >= 1
    binds = _binds(marginals, budget)[:, None]

    def best(direction: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        wish = direction.masked_fill(off, -torch.inf).masked_fill(on, torch.inf)
        ranked = wish.topk(min(budget, wish.shape[1]), dim=1)
        taken = (binds | (ranked.values > 0)) & (ranked.values > -torch.inf)
        return torch.zeros_like(wish).scatter(1, ranked.indices, taken.to(wish.dtype))

    return best
