"""Conformance with the reference solver, where an interpreter has it (`make lp-sparsemap`)."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from estimators.mappings import (
    best_chains,
    bit_marginals,
    chain_points,
    lp_sparsemap,
    sparsemap_bits,
)
from estimators.spaces import Bits
from estimators.summed.sparse import SparseMAP

reference = pytest.mark.skipif(
    not lp_sparsemap.available(), reason=f"no lp-sparsemap: {lp_sparsemap.VARIABLE} is not set"
)
PROBLEMS = 200
SIZES = (1, 2, 5, 16, 32)
SPREADS = (0.1, 1.0, 3.0)


def problems(size: int, spread: float) -> Tensor:
    rng = np.random.default_rng([size, int(10 * spread)])
    return torch.from_numpy(rng.normal(0.2, spread, (PROBLEMS, size)))


def gap(marginals: Tensor, target: Tensor, budget: int) -> Tensor:
    """Duality gap (B,) of marginals for the problem with one variable a bit: 0 at the optimum."""
    slope = target - marginals
    best = slope.clamp(min=0).sort(dim=1, descending=True).values[:, :budget].sum(dim=1)
    return best - (slope * marginals).sum(dim=1)


def agree(found: Tensor, wanted: Tensor, target: Tensor, budget: int) -> int:
    """Compare marginals and objective where the reference has converged; how many that are."""
    converged = gap(wanted, target, budget) < 1e-7
    torch.testing.assert_close(found[converged], wanted[converged], rtol=0, atol=1e-6)
    objectives = [(0.5 * (m - target).square().sum(dim=1))[converged] for m in (found, wanted)]
    torch.testing.assert_close(*objectives, rtol=1e-6, atol=1e-12)
    return int(converged.sum())


@reference
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("size", SIZES[1:])  # a chain has two places at least
def test_bits_agree(size: int, spread: float) -> None:
    scores = problems(size, spread)
    answer = lp_sparsemap.solve(scores.numpy())
    wanted = torch.from_numpy(answer["marginals"])
    for solver in ("active-set", "closed-form"):
        found = sparsemap_bits(scores, solver=solver).marginals  # type: ignore[arg-type]
        assert agree(found, wanted, (1 + scores) / 2, size) > 0.9 * PROBLEMS


@reference
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("size", SIZES)
def test_budgets_agree(size: int, spread: float) -> None:
    scores = problems(size, spread)
    for budget in sorted({1, max(1, size // 2)}):
        wanted = torch.from_numpy(lp_sparsemap.solve(scores.numpy(), budget)["marginals"])
        found = bit_marginals(scores, budget, "single")
        assert agree(found, wanted, scores, budget) > 0.9 * PROBLEMS


@reference
@pytest.mark.parametrize(("length", "states"), [(2, 2), (5, 3), (32, 8)])
def test_best_chains_agree(length: int, states: int) -> None:
    scores = problems((length + (length - 1) * states) * states, 1.0)
    answer = lp_sparsemap.best_chains(scores.numpy(), length, states)
    points = chain_points(best_chains(scores, length, states), states, torch.float64)
    found = points[:, : length * states]
    assert torch.equal(found, torch.from_numpy(answer["marginals"]).double())


@reference
def test_it_can_be_chosen_as_the_solver() -> None:
    scores = problems(6, 1.0)[:8].requires_grad_()
    solution = sparsemap_bits(scores, solver="lp-sparsemap")
    wanted = bit_marginals(scores)
    assert (solution.residual < 1e-4).all()
    torch.testing.assert_close(solution.marginals, wanted)
    estimator = SparseMAP.make(Bits(6), solver="lp-sparsemap")
    q = estimator.distribution(scores)
    (gradient,) = torch.autograd.grad(q.entropy().sum(), scores)
    assert torch.isfinite(gradient).all()


def test_without_it_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lp_sparsemap.VARIABLE, raising=False)
    with pytest.raises(RuntimeError, match="run `make lp-sparsemap`"):
        sparsemap_bits(torch.zeros(1, 2), solver="lp-sparsemap")
    monkeypatch.setenv(lp_sparsemap.VARIABLE, "/nowhere/python")
    with pytest.raises(RuntimeError, match="/nowhere/python can't be run"):
        sparsemap_bits(torch.zeros(1, 2), solver="lp-sparsemap")
    monkeypatch.setenv(lp_sparsemap.VARIABLE, sys.executable)
    with pytest.raises(RuntimeError, match=r"the lp-sparsemap worker failed: .*lpsmap"):
        sparsemap_bits(torch.zeros(1, 2), solver="lp-sparsemap")
    with pytest.raises(ValueError, match="without a budget only"):
        sparsemap_bits(torch.zeros(1, 2), 1, solver="lp-sparsemap")


def test_the_worker_runs_on_old_interpreters() -> None:
    """No syntax newer than Python 3.8."""
    import ast

    source = Path(lp_sparsemap.lp_sparsemap_worker.__file__).read_text()
    ast.parse(source, feature_version=(3, 8))
