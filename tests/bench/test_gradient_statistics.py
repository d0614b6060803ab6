"""The statistics of gradient estimates on Gaussian draws whose mean and variance are known."""

import pytest
import torch
from torch import Tensor

from bench.gradient_statistics import BLOCKS, Z, joined, quality

EXACT = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
DEVIATION = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
VARIANCE = 1 + 4 + 0.25
DRAWS = 8


def block_means(bias: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(BLOCKS, DRAWS, 3, generator=generator, dtype=torch.float64)
    return (EXACT + bias + DEVIATION * noise).mean(dim=1)


@pytest.mark.parametrize("bias", [[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [-1.0, 0.0, 1.0]])
def test_intervals_cover_as_often_as_they_claim(bias: list[float]) -> None:
    shift = torch.tensor(bias, dtype=torch.float64)
    norm, cosine = float(shift.norm()), float(torch.cosine_similarity(EXACT + shift, EXACT, dim=0))
    of_bias = of_variance = of_cosine = 0
    runs = 400
    for seed in range(runs):
        found = quality(block_means(shift, seed), EXACT, DRAWS)
        of_bias += found.bias_low <= norm <= found.bias_high
        of_variance += abs(found.variance - VARIANCE) <= Z * found.variance_error
        of_cosine += abs(found.cosine - cosine) <= Z * found.cosine_error
    assert of_bias / runs > 0.91
    assert of_variance / runs > 0.91
    if norm:  # without bias the cosine is at its largest, where no interval is symmetric
        assert of_cosine / runs > 0.88


def test_estimates_are_unbiased_over_many_runs() -> None:
    shift = torch.tensor([0.3, 0.0, 0.0], dtype=torch.float64)
    means = [block_means(shift, seed) for seed in range(500)]
    variances = [quality(m, EXACT, DRAWS).variance for m in means]
    assert sum(variances) / 500 == pytest.approx(VARIANCE, rel=0.02)
    # A square that is estimated below zero is reported as no bias: look at what is above.
    squares = [quality(m, EXACT, DRAWS).bias ** 2 for m in means]
    assert sum(squares) / 500 == pytest.approx(0.09, abs=0.03)


def test_a_square_below_zero_does_not_tighten_the_bound() -> None:
    """The bound stays near the noise of the mean, √(variance / draws), however luck has it."""
    found = [
        quality(block_means(torch.zeros(3).double(), seed), EXACT, DRAWS) for seed in range(400)
    ]
    noise = (VARIANCE / (BLOCKS * DRAWS)) ** 0.5
    assert min(q.bias_high for q in found) > 0.3 * noise


def test_joined_blocks_say_the_same_of_a_single_estimate() -> None:
    means = block_means(torch.zeros(3).double(), 0)
    halves = joined(means)
    assert len(halves) == BLOCKS // 2
    torch.testing.assert_close(halves.mean(dim=0), means.mean(dim=0))
    one, two = quality(means, EXACT, DRAWS), quality(halves, EXACT, 2 * DRAWS)
    assert abs(one.variance - two.variance) < 3 * (one.variance_error + two.variance_error)


def test_an_exact_estimate_has_neither_bias_nor_variance() -> None:
    found = quality(EXACT.expand(BLOCKS, -1), EXACT, 1)
    assert (found.bias_high, found.variance) == (0, 0)
    assert found.cosine == pytest.approx(1)
    assert found.mean_squared_error == 0
