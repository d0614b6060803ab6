"""How figures look: ticks and numbers."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.style import floor_note, logarithmic, plain


def ticks_of(low: float, high: float) -> list[str]:
    """The labels that a logarithmic axis between two numbers shows."""
    axes = Figure().subplots()
    axes.plot([low, high], [0, 0])
    logarithmic(axes.xaxis)
    axes.set_xlim(low, high)
    axes.figure.draw_without_rendering()
    places = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    return [label.get_text() for place, label in places if low <= place <= high]


@pytest.mark.parametrize("decades", [0.01, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 3, 5, 6, 7, 12, 25, 40])
def test_a_logarithmic_axis_has_few_ticks_whatever_it_spans(decades: float) -> None:
    for start in np.random.default_rng(0).uniform(-6, 3, size=12):
        ticks = ticks_of(10.0**start, 10.0 ** (start + decades))
        assert 3 <= len(ticks) <= 6, (start, ticks)
        assert len(set(ticks)) == len(ticks)


def test_ticks_stand_at_plain_numbers() -> None:
    assert ticks_of(0.9, 70) == ["1", "2", "5", "10", "20", "50"]
    assert ticks_of(2, 200) == ["3", "10", "30", "100"]
    assert ticks_of(1, 1e6) == ["1", "100", "1e4", "1e6"]
    assert ticks_of(1, 2.0**128) == ["1", "1e7", "1e14", "1e21", "1e28", "1e35"]
    assert ticks_of(85, 190) == ["100", "125", "150", "175"]


def test_numbers_are_short() -> None:
    numbers = [1e-7, 0.02, 9999, 1e4, 125000, 1e23]
    assert list(map(plain, numbers)) == ["1e-7", "0.02", "9999", "1e4", "1.25e5", "1e23"]


def test_the_floor_has_the_digits_of_the_differences_on_the_scale() -> None:
    assert floor_note(-1070.617, (-805.0, -802.0)) == "none: -1070.62"
    assert floor_note(-1070.617, (-920.0, -800.0)) == "none: -1071"
    assert floor_note(0.12412, (0.4, 0.9)) == "none: 0.124"
    assert floor_note(-802.5, (-805.0, -802.0)) == ""
