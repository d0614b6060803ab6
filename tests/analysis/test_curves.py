"""Figures of what happens during training: what is drawn, read back from the axes."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import (
    learning_against_calls,
    learning_against_seconds,
    learning_curves,
    support_during_training,
)
from tests.analysis.synthetic import cell, grid, table_of


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


@pytest.fixture
def table() -> pd.DataFrame:
    return grid(["game", "bitvector"], ["sfe", "sparsemax", "dense", "none"], 4)


def curves(axes: Axes) -> dict[str, np.ndarray]:
    lines = [(line.get_label(), line) for line in axes.lines]
    lines += [(bar.get_label(), bar.lines[0]) for bar in axes.containers]  # of a single point
    return {str(label): np.asarray(line.get_ydata()) for label, line in lines}


def test_learning_curves_show_the_mean_over_seeds(axes: Axes) -> None:
    table = table_of([cell("game", "sfe", 0, 0.4), cell("game", "sfe", 1, 0.6)])
    learning_curves(table, "game", axes)
    assert curves(axes)["sfe"] == pytest.approx([0.1, 0.3, 0.5])
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(0.5 + 0.1)  # one standard error of 0.4 and 0.6


def test_bands_of_curves_are_within_the_scale(axes: Axes) -> None:
    table = table_of(cell("game", "sfe", seed, score) for seed, score in enumerate([0.2, 0.9]))
    learning_curves(table, "game", axes)
    band = axes.collections[0].get_paths()[0].vertices
    late = band[band[:, 0] > 0, 1]  # without the start
    low, high = axes.get_ylim()
    assert low < late.min() < late.max() < high


def test_a_single_evaluation_on_the_scale_is_a_point_with_its_error(axes: Axes) -> None:
    """And no line to it from the start, which is off the scale; so it is behind others."""
    cells = [cell("bitvector", n, s, 0.5 + 0.1 * s)[::2] for n in ("sfe", "dense") for s in (0, 1)]
    table = table_of(cells)
    learning_curves(table, "bitvector", axes, highlight=["sfe"])
    (bar,) = axes.containers
    assert bar.get_label() == "sfe"
    assert [list(line.get_xdata()) for line in axes.lines] == [[2], [2]]
    assert {line.get_linestyle() for line in axes.lines} == {"None"}
    (up,) = bar.lines[2]
    own = table[(table["estimator"] == "sfe") & (table["step"] == 20)]["elbo"]
    assert np.sort(up.get_segments()[0][:, 1]) == pytest.approx(sorted(own.unique()))
    assert list(axes.get_xticks()) == [2]


def test_a_floor_that_ends_off_the_scale_is_told(table: pd.DataFrame) -> None:
    for draw in (learning_curves, learning_against_calls, learning_against_seconds):
        for before, last, title in ((0.44, -7.5, "game\nnone: -7.5"), (-7.5, 0.44, "game")):
            floor = np.where(table["step"] == 20, last, before)
            table["accuracy"] = table["accuracy"].mask(table["estimator"] == "none", floor)
            draw(table, "game", axes := Figure().subplots())
            assert axes.get_title() == title


def test_curves_are_drawn_across_epochs_calls_and_seconds(axes: Axes, table: pd.DataFrame) -> None:
    for draw, x in (
        (learning_curves, [0, 1, 2]),
        (learning_against_calls, [2000, 4000]),
        (learning_against_seconds, [3, 6]),
    ):
        own = Figure().subplots()
        draw(table, "game", own)
        (line,) = (line for line in own.lines if line.get_label() == "sfe")
        assert list(line.get_xdata()) == pytest.approx(x)


def test_a_floor_off_the_scale_takes_no_room(table: pd.DataFrame, axes: Axes) -> None:
    floor = table["estimator"] == "none"
    table["accuracy"] = table["accuracy"].mask(floor, -7.5)
    table["train_seconds"] = table["train_seconds"].mask(floor, 100 * table["train_seconds"])
    learning_against_seconds(table, "game", axes)
    assert axes.get_xlim()[1] < 10
    assert axes.get_xscale() == "linear"
    assert axes.get_title() == "game\nnone: -7.5"


def test_a_mean_curve_ends_where_the_first_of_its_runs_does(axes: Axes) -> None:
    """The other goes on, lower: their mean did not fall."""
    stopped, goes_on = cell("game", "sfe", 0, 1.0), cell("game", "sfe", 1, 0.2)
    table = table_of([stopped[:2], goes_on])
    learning_curves(table, "game", axes)
    assert curves(axes)["sfe"] == pytest.approx([0.12, 0.36])
    learning_against_calls(table, "game", other := Figure().subplots())
    assert curves(other)["sfe"] == pytest.approx([0.36])


def test_a_run_that_diverged_far_away_is_a_cross_at_the_edge(axes: Axes) -> None:
    lost = cell("game", "sfe", 1, -30.0, status="diverged")[:2]
    learning_curves(table_of([cell("game", "dense", 0, 0.5), lost]), "game", axes)
    (cross,) = (line for line in axes.lines if line.get_marker() == "x")
    low, _ = axes.get_ylim()
    assert low > 0
    assert cross.get_ydata()[0] == low


def test_a_run_that_diverged_is_drawn_to_its_end(axes: Axes) -> None:
    lost = cell("game", "sfe", 1, 0.4, status="diverged")[:2]
    learning_curves(table_of([cell("game", "sfe", 0, 0.4), lost]), "game", axes)
    (cross,) = (line for line in axes.lines if line.get_marker() == "x")
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == pytest.approx((1, 0.24))
    assert curves(axes)["sfe"] == pytest.approx([0.08, 0.24, 0.4])


def test_what_is_not_highlighted_stays_behind(table: pd.DataFrame, axes: Axes) -> None:
    learning_curves(table, "game", axes, highlight=["sfe"])
    assert {"sfe", "none"} <= set(curves(axes))
    assert not {"dense", "sparsemax"} & set(curves(axes))
    assert len(axes.collections[0].get_segments()) == 2


def test_support_that_never_changes_is_one_line(table: pd.DataFrame, axes: Axes) -> None:
    support_during_training(table, "game", axes)
    drawn = curves(axes)
    assert drawn["sparsemax"] == pytest.approx([7.4, 6.2, 5.0])
    assert not {"sfe", "dense"} & set(drawn)
    assert [text.get_text() for text in axes.texts] == ["all others: 8"]
    small = table.assign(support_mean=table["support_mean"].mask(table["estimator"] == "sfe", 1.0))
    support_during_training(small, "game", other := Figure().subplots())
    assert curves(other)["sfe"] == pytest.approx([1, 1, 1])
    assert [text.get_text() for text in other.texts] == ["all others: 8"]
    same = table[table["estimator"] != "sparsemax"]
    support_during_training(same, "game", alone := Figure().subplots())
    assert [text.get_text() for text in alone.texts] == ["all: 8"]


@pytest.mark.parametrize(
    ("size", "said"), [(2.0**32, "all: $2^{32}$"), (3e9, "all: 3e9"), (10.0, "all: 10")]
)
def test_equal_supports_are_said_in_short_along_all_epochs(
    size: float, said: str, axes: Axes
) -> None:
    table = table_of([cell("game", "sfe", 0, 0.5)]).assign(support_mean=size)
    table["epoch"] *= 10
    support_during_training(table, "game", axes)
    assert [text.get_text() for text in axes.texts] == [said]
    assert 20 < axes.get_xlim()[1] < 25


def test_the_band_of_the_support_holds_four_fifths_of_the_runs(axes: Axes) -> None:
    table = table_of(cell("game", "sparsemax", seed, 0.5) for seed in range(11))
    table["support_mean"] += table["seed"] / 10
    support_during_training(table, "game", axes)
    band = axes.collections[0].get_paths()[0].vertices
    last = band[band[:, 0] == 2, 1]
    assert (last.min(), last.max()) == pytest.approx((5.1, 5.9))
