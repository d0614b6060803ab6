"""Coupled samples, and samples that differ in one value: their laws, and where they coincide."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from estimators.base import Estimator
from estimators.sampled import coupled, one_variable
from estimators.sampled.coupled import ARM, ARMS, DisARM, coupled_bits
from estimators.sampled.one_variable import UGC, BitFlip, LocalExpectation
from estimators.sampler import Sampler
from estimators.spaces import Bits, Categoricals, Space
from tests.estimators.contract import (
    FEW_BITS,
    Problem,
    check_expectation,
    draws_of_a_row,
    exact,
    network,
    run,
)
from tests.estimators.every_outcome import EveryOutcome
from tests.estimators.relaxed.test_relaxations import NODES, Quadrature


def outcomes(estimator: Estimator, problem: Problem) -> tuple[Tensor, Tensor]:
    """The probability of each outcome, and its estimate for the scores."""
    estimator.double()
    draws = draws_of_a_row(estimator, problem, network)
    dealer = EveryOutcome(draws)
    found = run(estimator, problem, network, dealer, math.prod(draws)).scores
    return dealer.weight, found.flatten(1)


def variance(estimator: Estimator, problem: Problem) -> Tensor:
    weight, found = outcomes(estimator, problem)
    return weight @ (found - weight @ found).square()


@pytest.mark.parametrize("size", [2, 3, 4])
def test_coupled_bits_have_the_law_of_their_copula(size: int) -> None:
    """Of one bit: each is on with θ, and k given ones are all of the rarer value with
    max(k m^(1/(n−1)) − (k − 1), 0)^(n−1)."""
    for score in (-3.0, -0.4, 0.0, 1.2):
        draws = [2] * size
        dealer = EveryOutcome(draws)
        scores = torch.full((2**size, 1), score, dtype=torch.float64)
        z = coupled_bits(scores, 1, size, dealer)[:, 0, :, 0]
        theta = torch.tensor(score, dtype=torch.float64).sigmoid()
        torch.testing.assert_close(dealer.weight @ z, theta.expand(size))
        rare, m = (z if score <= 0 else 1 - z), min(theta, 1 - theta)
        for k in range(1, size + 1):
            wanted = max(k * m ** (1 / (size - 1)) - (k - 1), 0) ** (size - 1)
            for some in itertools.combinations(range(size), k):
                found = dealer.weight @ rare[:, list(some)].prod(dim=1)
                assert float(found) == pytest.approx(float(wanted), abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_arms_with_two_samples_is_disarm(seed: int) -> None:
    problem = Problem.random(FEW_BITS, seed)
    one, other = (
        outcomes(estimator, problem)
        for estimator in (DisARM.make(FEW_BITS), ARMS.make(FEW_BITS, samples=2))
    )
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(left, right)


def test_disarm_is_exact_for_a_fair_bit() -> None:
    problem = Problem(Bits(1), torch.zeros(1, dtype=torch.float64), torch.ones(1).double())
    assert variance(DisARM.make(Bits(1)), problem).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", [BitFlip, LocalExpectation])
def test_one_bit_is_summed_over(kind: type[Estimator]) -> None:
    problem = Problem.random(Bits(1))
    _, found = outcomes(kind.make(Bits(1)), problem)
    wanted = exact(kind.make(Bits(1)).double(), problem, network).scores
    torch.testing.assert_close(found, wanted.expand_as(found), rtol=1e-6, atol=1e-8)


def test_one_category_is_summed_over() -> None:
    space = Categoricals(1, 4)
    _, found = outcomes(LocalExpectation.make(space), Problem.random(space))
    wanted = exact(LocalExpectation.make(space).double(), Problem.random(space), network).scores
    torch.testing.assert_close(found, wanted.flatten().expand_as(found), rtol=1e-6, atol=1e-8)


def test_ugc_takes_bitflip_where_a_bit_is_nearly_certain_and_disarm_elsewhere() -> None:
    scores = torch.tensor([4.0, 0.3], dtype=torch.float64)  # 0.018 is below a quarter, 0.43 not
    problem = Problem(FEW_BITS, scores, torch.tensor([0.8, -1.1], dtype=torch.float64))
    found, flip, pair = (variance(kind.make(FEW_BITS), problem) for kind in (UGC, BitFlip, DisARM))
    torch.testing.assert_close(found, torch.stack([flip[0], pair[1]]))


def test_arm_is_disarm_on_average_over_what_disarm_does_not_see() -> None:
    """By quadrature over its uniform variable, and its variance is no smaller."""
    problem = Problem.random(Bits(1), seed=3)
    found = run(ARM.make(Bits(1)).double(), problem, network, Quadrature(), NODES).scores
    wanted = exact(ARM.make(Bits(1)).double(), problem, network).scores
    torch.testing.assert_close(found.mean(dim=0), wanted, rtol=1e-4, atol=1e-5)
    assert (found.var(dim=0) >= variance(DisARM.make(Bits(1)), problem)).all()


CASES: list[tuple[type[Estimator], Space, dict[str, Any]]] = [
    (DisARM, FEW_BITS, {"pairs": 1}),
    (ARMS, FEW_BITS, {"samples": 3}),
    (UGC, FEW_BITS, {}),
    (BitFlip, FEW_BITS, {}),
    (LocalExpectation, FEW_BITS, {}),
    (LocalExpectation, Categoricals(2, 2), {}),
]


@pytest.mark.parametrize(("kind", "space", "settings"), CASES)
@pytest.mark.parametrize("scale", [0.0, 10.0])
def test_extreme_and_equal_scores(
    kind: type[Estimator], space: Space, settings: dict[str, Any], scale: float
) -> None:
    problem = Problem.random(space)
    signs = torch.linspace(-1, 1, problem.scores.numel()).sign().view_as(problem.scores)
    extreme = Problem(space, scale * signs.double(), problem.theta)
    check_expectation(kind.make(space, **settings), extreme, network)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "space", "settings"), [*CASES, (ARM, FEW_BITS, {})])
def test_bits_that_are_certain_give_numbers(
    kind: type[Estimator], space: Space, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    estimator = kind.make(space, **settings).to(dtype)
    for scale in (30.0, 1e4):
        scores = torch.randn(20, *space.scores_shape, dtype=dtype).sign() * scale
        q = estimator.distribution(scores.requires_grad_())
        proposal = estimator.propose(q, torch.zeros(20, 0), Sampler())
        assert proposal.decoder_weight is not None
        assert proposal.decoder_weight.isfinite().all()
        assert proposal.z.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "where", "name", "planted"),
    [
        (DisARM, coupled, "opposite", lambda scores, z: (z[:, :, 0] - z[:, :, 1]) / 2),
        (ARMS, coupled, "ratio", lambda scores, size: torch.ones_like(scores)),
        (BitFlip, one_variable, "chance_of_flip", lambda z, scores: torch.full_like(z, 0.5)),
        (LocalExpectation, one_variable, "chance_of_flip", lambda z, s: torch.full_like(z, 0.5)),
        (DisARM, coupled, "surrogate_of", lambda gradient, scores: gradient.detach().sum(dim=1)
            * scores.sum(dim=1)),
    ],
)  # fmt: skip
def test_what_is_planted_is_found(
    kind: type[Estimator], where: Any, name: str, planted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, planted)
    with pytest.raises(AssertionError):
        check_expectation(kind.make(FEW_BITS), Problem.random(FEW_BITS), network)
