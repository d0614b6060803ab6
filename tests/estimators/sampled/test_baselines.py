"""Running statistics of costs."""

import pytest
import torch

from estimators.sampled.baselines import MovingAverage


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_an_average_weighs_a_batch_by_its_age(decay: float) -> None:
    """With decay 1 all weigh the same: the mean over all steps."""
    average = MovingAverage(decay).double()
    assert average.value == 0
    values = torch.tensor([5.0, -1.0, 2.0, 7.0], dtype=torch.float64)
    for seen, value in enumerate(values, 1):
        average.update(value)
        weights = torch.tensor([decay**age for age in range(seen)], dtype=torch.float64).flip(0)
        expected = (weights * values[:seen]).sum() / weights.sum()
        torch.testing.assert_close(average.value, expected)
