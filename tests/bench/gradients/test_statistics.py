"""The statistics of gradient estimates on Gaussian draws whose mean and variance are known."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from analysis.gradient_rows import Z, norm_interval
from bench.gradients.statistics import BLOCKS, Draws, Quality, estimates, room_above

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


SIMULATED = 2000
LEAST = 0.95 - 3 * (0.95 * 0.05 / SIMULATED) ** 0.5
"""0.935: three standard errors of a share below what is stated."""
BIASES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 10.0)
"""In standard errors of the mean estimate."""


def gaussian(deviations: Tensor, blocks: int = BLOCKS) -> Tensor:
    """(runs, blocks, P): noise of which the mean over blocks has these deviations (P,)."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(SIMULATED, blocks, len(deviations), generator=generator).double()
    return noise * deviations * blocks**0.5


def limits(off: Tensor, jackknife_alone: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The bias's limits of runs whose blocks are of one draw each, (runs, R, P)."""
    nothing = off.new_zeros(off.shape[:2])
    products = off @ off.transpose(1, 2)
    found = estimates(products, nothing, nothing, 1.0, 1)
    square, below, variance = found[:, 0, 0], Z * found[:, 0, 1], found[:, 1, 0]
    room = room_above(products, square, variance / off.shape[1])
    above = below if jackknife_alone else below.fmax(room)
    _, low, high = np.vectorize(norm_interval)(square, below, above)
    return low, high


def covered(noise: Tensor, bias: Tensor, jackknife_alone: bool = False) -> float:
    """The share of runs whose limits have the bias between them."""
    low, high = limits(noise + bias, jackknife_alone)
    norm = float(bias.norm())
    return float(((low <= norm) & (norm <= high)).mean())


def first(size: int, bias: float) -> Tensor:
    return bias * torch.eye(size)[0].double()


@pytest.mark.parametrize("size", [1, 2, 10, 100])
def test_the_bias_is_in_its_interval_in_any_number_of_dimensions(size: int) -> None:
    noise = gaussian(torch.full((size,), size**-0.5))
    for bias in BIASES:
        assert covered(noise, first(size, bias)) > LEAST, bias
    if size <= 2:  # what the jackknife alone would miss
        assert min(covered(noise, first(size, bias), True) for bias in BIASES) < LEAST - 0.02


def test_the_bias_is_in_its_interval_where_it_lies_along_the_most_noise() -> None:
    """A hundred small dimensions hide one: neither part of the upper limit is enough alone."""
    for one in (1.0, 3.0):
        noise = gaussian(torch.tensor([one**0.5, *[0.1**0.5] * 100]).double())
        for bias in (2.0, 3.0, 5.0):
            assert covered(noise, first(101, bias * one**0.5)) > LEAST - 0.01


def test_many_dimensions_pay_nothing_for_the_few() -> None:
    noise = gaussian(torch.full((100,), 0.1))
    for bias in (0.0, 1.0, 3.0):
        drawn = noise + first(100, bias)
        assert limits(drawn)[1].mean() < 1.01 * limits(drawn, True)[1].mean()


@pytest.mark.parametrize("size", [1, 2])
def test_stopping_where_the_interval_is_narrow_leaves_the_bias_in_it(size: int) -> None:
    """Looks at 32, 64, ... draws, the last of which has biases of up to five standard errors."""
    looks = 5
    noise = gaussian(torch.full((size,), size**-0.5), BLOCKS * 2 ** (looks - 1))
    for bias in (1.0, 2.0, 3.0):
        for width in (2.0, 3.0):
            low, high = np.full((2, SIMULATED), np.nan)
            for look in range(looks):
                drawn = noise[:, : BLOCKS * 2**look].unflatten(1, (BLOCKS, -1)).mean(dim=2)
                a, b = limits(drawn + first(size, bias))
                stops = np.isnan(low) & ((b - a <= width) | (look == looks - 1))
                low[stops], high[stops] = a[stops], b[stops]
            assert ((low <= bias) & (bias <= high)).mean() > LEAST - 0.01


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
