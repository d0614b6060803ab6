"""What a run of the quick profile has to show: `make claims`, after `make bench`.

Not collected by pytest, which would have to run the benchmark first.
"""

from pathlib import Path

import pandas as pd
import pytest

from analysis.load import FLOOR, final_rows, load_results

RESULTS = Path("results/quick")


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    """Test metrics, means over seeds, by task and estimator."""
    final = final_rows(load_results(RESULTS))
    return final.groupby(["task", "estimator"]).mean(numeric_only=True)


@pytest.mark.parametrize("estimator", ["dense", "sparsemax"])
def test_unlabelled_images_do_not_cost_accuracy(scores: pd.DataFrame, estimator: str) -> None:
    accuracy = scores.loc["ssvae"]["accuracy"]
    assert accuracy[estimator] >= accuracy[FLOOR]


@pytest.mark.parametrize("estimator", ["dense", "sparsemax"])
def test_the_game_is_learned(scores: pd.DataFrame, estimator: str) -> None:
    game = scores.loc["signal_game"].loc[estimator]
    assert game["accuracy"] > 4 * game["chance"]


def test_every_estimator_learns_the_images(scores: pd.DataFrame) -> None:
    nll = scores.loc["bitvector"]["nll"]
    assert (nll.drop(FLOOR) < 0.9 * nll[FLOOR]).all()  # the floor knows how frequent levels are


def test_a_baseline_helps(scores: pd.DataFrame) -> None:
    accuracy = scores.loc["signal_game"]["accuracy"]
    assert accuracy["rloo"] > accuracy["sfe"]
