"""SparseMAP of any structure that an oracle gives, against brute force."""

import itertools

import pytest
import torch
from scipy import optimize
from torch import Tensor

from estimators.mappings import (
    Oracle,
    all_bit_vectors,
    best_bits,
    best_bits_within,
    best_chain,
    bit_marginals,
    sparsemap,
)
from tests.estimators.mappings.test_mappings import random_scores


def nearest_in_hull(vertices: Tensor, target: Tensor) -> Tensor:
    """The point of a hull (M, D) nearest to a target (D,), by non-negative least squares."""
    heavy = 1e4
    system = torch.cat([vertices.T, heavy * torch.ones(1, len(vertices)).double()])
    right = torch.cat([target, torch.tensor([heavy], dtype=torch.float64)])
    weights, _ = optimize.nnls(system.numpy(), right.numpy(), maxiter=10_000)
    return torch.from_numpy(weights / weights.sum()) @ vertices


def all_chains(length: int, states: int) -> Tensor:
    """Every chain as an indicator vector, built state by state."""
    rows = []
    for path in itertools.product(range(states), repeat=length):
        alone = torch.zeros(length, states, dtype=torch.float64)
        links = torch.zeros(length - 1, states, states, dtype=torch.float64)
        for place, state in enumerate(path):
            alone[place, state] = 1
            if place:
                links[place - 1, path[place - 1], state] = 1
        rows.append(torch.cat([alone.flatten(), links.flatten()]))
    return torch.stack(rows)


@pytest.mark.parametrize(("length", "states"), [(1, 3), (2, 2), (4, 3), (5, 2)])
def test_the_best_chain_is_the_best_of_all(length: int, states: int) -> None:
    chains = all_chains(length, states)
    scores = random_scores(30, chains.shape[1])
    found = best_chain(length, states)(scores)
    assert torch.equal(found, chains[(scores @ chains.T).argmax(dim=1)])


@pytest.mark.parametrize(
    ("oracle", "vertices"),
    [
        (best_bits, all_bit_vectors(5, torch.zeros(1).double())),
        (
            best_bits_within(2),
            (lambda v: v[v.sum(dim=1) <= 2])(all_bit_vectors(5, torch.zeros(1).double())),
        ),
        (best_chain(3, 2), all_chains(3, 2)),
        (best_chain(4, 3), all_chains(4, 3)),
    ],
    ids=["bits", "budget", "chain-3-2", "chain-4-3"],
)
def test_sparsemap_of_any_oracle_finds_the_nearest_point(oracle: Oracle, vertices: Tensor) -> None:
    scores = random_scores(12, vertices.shape[1], seed=7)
    solution = sparsemap(scores, oracle)
    assert solution.converged.all()
    assert (solution.probabilities >= 0).all()
    for row in range(len(scores)):
        wanted = nearest_in_hull(vertices, scores[row])
        torch.testing.assert_close(solution.marginals[row], wanted, rtol=0, atol=2e-6)
        used = solution.vertices[row][solution.probabilities[row] > 0]
        assert all((vertices == vertex).all(dim=1).any() for vertex in used)


def mixed_scores(rows: int, size: int, scale: float) -> Tensor:
    """Between 0 and 1, of which some are moved up or down by the scale."""
    generator = torch.Generator().manual_seed(0)
    moved = torch.randint(-1, 2, (rows, size), generator=generator)
    return scale * moved + torch.rand(rows, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e6])
def test_sparsemap_of_bits_holds_next_to_large_scores(scale: float) -> None:
    scores = mixed_scores(600, 8, scale)
    scores[0, :5] = torch.tensor([scale, 0.3, 0.3 + 5e-9 * scale, 0.61, 0.9])
    solution = sparsemap(scores, best_bits)
    error = (solution.marginals - scores.clamp(0, 1)).norm(dim=1)
    assert solution.converged.all()
    assert (error <= 1e-9).all()


def test_sparsemap_of_an_oracle_passes_gradcheck() -> None:
    scores = random_scores(3, 14, seed=7).requires_grad_()
    oracle = best_chain(3, 2)
    assert torch.autograd.gradcheck(lambda s: sparsemap(s, oracle, 1e-7).marginals, scores)


def test_sparsemap_of_bits_is_the_single_problem() -> None:
    scores = random_scores(6, 9)
    for budget, oracle in ((None, best_bits), (3, best_bits_within(3))):
        wanted = bit_marginals(scores, budget, "single")
        found = sparsemap(scores, oracle).marginals
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)
