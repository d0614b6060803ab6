"""The level of the costs is no part of the gradient of a sum that is called exact, whatever ties.

A vertex of probability zero that has a derivative, or a derivative that counts another support than
its probabilities, lets it in.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from estimators.base import Evaluated
from estimators.mappings import sparsemap_bits
from estimators.sampler import Sampler
from estimators.spaces import Bits, Categoricals, Chains, Subsets
from estimators.spaces.base import Space
from estimators.spaces.distribution import FiniteDistribution
from estimators.summed.sparse import SparseMAP, SparseMAPBudget, TopKSparsemax
from estimators.summed.support_sum import Dense, Sparsemax, SupportSum

LEVEL = 1e6

SPACES: dict[Space, tuple[int, ...]] = {
    Bits(1): (1,),
    Bits(4): (4,),
    Categoricals(1, 4): (1, 4),
    Categoricals(2, 2): (2, 2),
    Subsets(1, 4, 2): (1, 4),
    Subsets(2, 3, 2): (2, 3),
    Chains(2, 2): (8,),
}

SUMS: list[tuple[type[SupportSum], dict[str, Any]]] = [
    (Dense, {}),
    (Sparsemax, {}),
    (TopKSparsemax, {"k": 2}),
    (TopKSparsemax, {"k": 4}),
    *(
        (kind, {"solver": solver, "parametrisation": parametrisation})
        for kind in (SparseMAP, SparseMAPBudget)
        for solver in ("active-set", "closed-form")
        for parametrisation in ("pairs", "single")
    ),
]

CASES = [
    (kind, space, chosen)
    for kind, chosen in SUMS
    for space in SPACES
    if kind.refusal(space, kind.Settings(**chosen)) is None
    and (isinstance(space, Bits) or not {"solver": "closed-form"}.items() <= chosen.items())
]

STEPS = (0.1, 0.2, 0.25, 1.0)
"""Scores are whole multiples of these: ties, and thresholds that rounding puts on either side."""

ROWS = 300
"""Of each step."""


def tied_scores(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(-12, 13, (len(STEPS), ROWS, *shape), generator=generator)
    steps = torch.tensor(STEPS, dtype=torch.float64).view(-1, *[1] * (whole.dim() - 1))
    return (steps * whole).to(dtype).flatten(0, 1).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "space", "chosen"), CASES)
def test_costs_that_are_all_the_same_have_no_gradient(
    kind: type[SupportSum],
    space: Space,
    chosen: dict[str, Any],
    dtype: torch.dtype,
) -> None:
    estimator = kind.make(space, **chosen).to(dtype)
    scores = tied_scores(SPACES[space], dtype)
    q = estimator.distribution(scores)
    assert isinstance(q, FiniteDistribution)
    close = 20 * torch.finfo(dtype).eps
    # Of the probabilities, and then of what is made of them, where centring would hide the former.
    (leak,) = torch.autograd.grad(q.support.probability.sum(), scores, retain_graph=True)
    torch.testing.assert_close(leak, torch.zeros_like(leak), rtol=0, atol=close)
    proposal = estimator.propose(q, scores.new_zeros(len(scores), 0), Sampler())
    costs = scores.new_full((len(proposal.row),), LEVEL)
    surrogate = estimator.combine(q, proposal, Evaluated(costs)).surrogate
    assert surrogate is not None
    (gradient,) = torch.autograd.grad(surrogate.sum(), scores)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=LEVEL * close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("parametrisation", ["pairs", "single"])
@pytest.mark.parametrize("budget", [None, 0, 1, 2, 4])
def test_the_mean_vertex_moves_with_the_marginals_where_they_tie(
    budget: int | None, parametrisation: Any, dtype: torch.dtype
) -> None:
    scores = tied_scores((4,), dtype)
    found = sparsemap_bits(scores, budget, parametrisation, "closed-form")
    mean = torch.einsum("bm,bmd->bd", found.probabilities, found.vertices)
    torch.testing.assert_close(mean, found.marginals)
    assert budget is None or (found.vertices.sum(dim=2) <= budget)[found.probabilities > 0].all()
    weight = torch.randn(4, generator=torch.Generator().manual_seed(0)).to(dtype)
    one, other = (
        torch.autograd.grad((moved @ weight).sum(), scores, retain_graph=True)[0]
        for moved in (mean, found.marginals)
    )
    torch.testing.assert_close(one, other, rtol=0, atol=20 * torch.finfo(dtype).eps)


def test_entropy_takes_no_side_between_bits_that_tie() -> None:
    """Were one of two equal marginals the larger, a vertex between them had the difference."""
    scores = torch.tensor([[-0.4, -0.4]], dtype=torch.float64, requires_grad=True)
    q = SparseMAP.make(Bits(2), solver="closed-form").distribution(scores)
    (gradient,) = torch.autograd.grad(q.entropy().sum(), scores)
    # Of 0.3, 0 and 0.7, where each bit takes half of what the second has from the first.
    odds = torch.tensor(0.7 / 0.3, dtype=torch.float64).log()
    assert gradient.sum().item() == pytest.approx(0.5 * odds.item())


@pytest.mark.parametrize(("kind", "space", "chosen"), CASES)
def test_float32_keeps_its_digits_for_the_differences_of_costs(
    kind: type[SupportSum], space: Space, chosen: dict[str, Any]
) -> None:
    """Of costs in eighths, which it has exactly at this level, against float64 without it."""
    found = []
    for dtype, level in ((torch.float32, LEVEL), (torch.float64, 0.0)):
        estimator = kind.make(space, **chosen).to(dtype)
        scores = torch.randn(ROWS, *SPACES[space], generator=torch.Generator().manual_seed(3))
        scores = scores.to(dtype).requires_grad_()
        q = estimator.distribution(scores)
        proposal = estimator.propose(q, scores.new_zeros(ROWS, 0), Sampler())
        costs = space.point(proposal.z, dtype).flatten(1).cumsum(dim=1).sum(dim=1) / 8 + level
        surrogate = estimator.combine(q, proposal, Evaluated(costs)).surrogate
        assert surrogate is not None
        found.append(torch.autograd.grad(surrogate.sum(), scores)[0].double())
    assert (found[0] - found[1]).square().mean().sqrt() < 0.02
