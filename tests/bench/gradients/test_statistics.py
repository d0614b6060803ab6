"""The statistics of gradient estimates on Gaussian draws whose mean and variance are known."""

from functools import cache

import pytest
import torch
from torch import Tensor

from analysis.gradient_rows import Z
from bench.gradients.statistics import BLOCKS, Draws, Quality

EXACT = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
DEVIATION = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
VARIANCE = 1 + 4 + 0.25
RUNS = 200


def sample(bias: Tensor, seed: int, count: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return EXACT + bias + DEVIATION * noise


def quality(drawn: Tensor) -> Quality:
    draws = Draws(EXACT)
    for draw in drawn:
        draws.add(draw)
    return draws.quality()


NO_BIAS, SOME, MORE = (0.0, 0.0, 0.0), (0.0, 0.5, 0.0), (-1.0, 0.0, 1.0)


@cache
def runs(bias: tuple[float, ...]) -> list[Quality]:
    shift = torch.tensor(bias, dtype=torch.float64)
    return [quality(sample(shift, seed)) for seed in range(RUNS)]


@pytest.mark.parametrize("bias", [NO_BIAS, SOME, MORE])
def test_intervals_cover_as_often_as_they_claim(bias: tuple[float, ...]) -> None:
    shift = torch.tensor(bias, dtype=torch.float64)
    norm, cosine = float(shift.norm()), float(torch.cosine_similarity(EXACT + shift, EXACT, dim=0))
    found = runs(bias)
    assert sum(q.bias_low <= norm <= q.bias_high for q in found) / RUNS > 0.9
    assert sum(abs(q.variance - VARIANCE) <= Z * q.variance_error for q in found) / RUNS > 0.91
    if norm:  # without bias the cosine is at its largest, where no interval is symmetric
        assert sum(abs(q.cosine - cosine) <= Z * q.cosine_error for q in found) / RUNS > 0.88


def test_estimates_are_unbiased_over_many_runs() -> None:
    for bias in (NO_BIAS, SOME):
        assert sum(q.variance for q in runs(bias)) / RUNS == pytest.approx(VARIANCE, rel=0.02)
        square = sum(b**2 for b in bias)
        assert sum(q.bias_square for q in runs(bias)) / RUNS == pytest.approx(square, abs=0.015)


@pytest.mark.parametrize("count", [32, 64, 512])
def test_joined_blocks_say_what_all_draws_at_once_would(count: int) -> None:
    """Welford's sums, block by block and joined, against the textbook's formulas."""
    drawn = sample(torch.tensor([0.3, 0.0, 0.0]).double(), 3, count)
    found, mean = quality(drawn), drawn.mean(dim=0)
    variance = float((drawn - mean).square().sum()) / (count - 1)
    signal = mean.square().sum() - variance / count
    assert found.variance == pytest.approx(variance, rel=1e-12)
    assert found.bias_square == pytest.approx(
        float((mean - EXACT).square().sum()) - variance / count, rel=1e-9
    )
    assert found.cosine == pytest.approx(float(mean @ EXACT / (EXACT.norm() * signal.sqrt())))
    assert found.signal_to_noise == pytest.approx(5 / variance**0.5)


def test_draws_in_a_block_that_is_not_full_are_left_out() -> None:
    drawn = sample(torch.zeros(3).double(), 0, 65)
    one, other = quality(drawn), quality(drawn[:64])
    assert one.variance == pytest.approx(other.variance)
    assert one.bias_square == pytest.approx(other.bias_square)


def test_a_square_below_zero_does_not_tighten_the_bound() -> None:
    """The bound stays near the noise of the mean, √(variance / draws), however luck has it."""
    assert min(q.bias_square for q in runs(NO_BIAS)) < 0
    assert min(q.bias_high for q in runs(NO_BIAS)) > 0.3 * (VARIANCE / 256) ** 0.5


def test_an_exact_estimate_has_neither_bias_nor_variance() -> None:
    found = quality(EXACT.expand(BLOCKS, -1))
    assert (found.bias_high, found.variance) == (0, 0)
    assert found.cosine == pytest.approx(1)
    assert found.mean_squared_error == 0
    assert found.signal_to_noise == float("inf")
