"""Comparisons between estimators, from tables made by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis.comparisons import (
    UnknownBaselineError,
    best_estimators,
    changes,
    choose_baseline,
    compared_for_best,
    differences,
    over_tasks,
    score_statistics,
    why_left_out,
)
from analysis.load import end_rows
from analysis.scores import ended_badly, normalised, score_frame
from analysis.stored import ResultsError
from tests.analysis.synthetic import COMMON, cell, grid, table_of

NAMES = ["sfe", "rloo", "dense"]


def test_scores_stand_side_by_side_by_seed() -> None:
    table = table_of(
        [
            cell("game", "sfe", 1, 0.5),
            cell("game", "dense", 0, 0.9),
            cell("game", "sfe", 0, 0.4),
            cell("game", "dense", 1, 0.1, status="failed"),
            cell("game", "x", 0, np.nan),
        ]
    )
    frame = score_frame(table, "game")
    assert frame["sfe"].tolist() == [0.4, 0.5]
    assert frame["dense"].tolist() == pytest.approx([0.9, np.nan], nan_ok=True)
    assert "x" not in frame
    assert ended_badly(table, "game").to_dict() == {"sfe": 0, "dense": 1, "x": 1}


def test_what_is_compared_is_the_same_without_the_curves() -> None:
    table = grid(["game"], NAMES, 4)
    ends = end_rows(table)
    assert len(ends) == table["key"].nunique()
    pd.testing.assert_frame_equal(score_frame(ends, "game"), score_frame(table, "game"))


def test_differences_are_paired_by_seed() -> None:
    """Seeds differ by far more than the estimators do, and one seed is missing."""
    effects = [0.1, 0.9, 0.5, 0.3]
    ours = [cell("game", "rloo", s, effects[s] + 0.01 * (1 + s % 2)) for s in (3, 1, 0, 2)]
    theirs = [cell("game", "dense", s, effects[s]) for s in (0, 1, 3)]
    found = differences(table_of([*ours, *theirs]), "game", "dense").loc["rloo"]
    assert found["seeds"] == 3
    assert found["difference"] == pytest.approx(0.05 / 3)
    assert 0 < found["high"] - found["low"] < 0.05


def test_a_difference_is_called_real_only_with_seeds_enough() -> None:
    few = differences(grid(["game"], NAMES, 5), "game", "dense")
    assert set(few["statement"]) == {"none: needs 7 seeds"}
    enough = differences(grid(["game"], NAMES, 9), "game", "dense")
    assert enough["statement"].to_dict() == {"rloo": "worse", "sfe": "worse"}
    assert (enough["p"] <= 0.05).all()
    fewer = grid(["game"], NAMES, 9)
    alike = fewer.assign(accuracy=np.random.default_rng(1).normal(size=len(fewer)))
    assert set(differences(alike, "game", "dense")["statement"]) == {"no difference found"}


def test_p_is_adjusted_for_all_comparisons_of_the_task() -> None:
    alone = differences(grid(["game"], ["sfe", "dense"], 9), "game", "dense")
    many = differences(grid(["game"], [*"abcd", "dense"], 9), "game", "dense")
    assert alone["p"].tolist() == pytest.approx([2 / 2**9])
    assert many["p"].min() == pytest.approx(4 * 2 / 2**9)


def test_less_is_better_where_the_score_is_a_cost() -> None:
    """The last estimator has the most bits a dimension, which is worst."""
    table = grid(["bitvector"], NAMES, 9)
    found = differences(table, "bitvector", "dense")
    assert (found["difference"] < 0).all()
    assert set(found["statement"]) == {"better"}
    assert (found["improvement"] > 0.5).all()
    assert best_estimators(table, "bitvector") == ["sfe"]


def test_what_failed_somewhere_is_neither_better_nor_best() -> None:
    """The mean over the seeds that ended flatters an estimator that diverges on the others."""
    table = grid(["game"], NAMES, 9)
    assert best_estimators(table, "game") == ["dense"]
    lost = table_of([cell("game", "dense", 9, 0.1, status="diverged")])
    table = pd.concat([table, lost])
    assert "dense" not in best_estimators(table, "game")
    statements = differences(table, "game", "rloo")["statement"]
    assert statements.to_dict() == {"dense": "none: runs are missing", "sfe": "worse"}


def test_the_floor_is_never_best() -> None:
    assert "none" not in best_estimators(grid(["game"], ["sfe", "dense", "none"], 9), "game")


def test_nothing_is_best_of_two_seeds() -> None:
    assert best_estimators(grid(["game"], NAMES, 2), "game") == []
    assert best_estimators(grid(["game"], ["sfe"], 5), "game") == []


def test_few_seeds_of_one_do_not_take_those_of_the_others() -> None:
    """The best of ten seeds is the worst on the three that all have."""
    scores = {
        "dense": [0.70, 0.72, 0.69, *[0.99, 0.98, 1.0] * 2, 0.99],
        "sfe": [0.81, 0.82, 0.80, *[0.82, 0.81, 0.83] * 2, 0.82],
        "rloo": [0.80, 0.83, 0.79],
    }
    table = table_of(
        cell("game", name, seed, score)
        for name, own in scores.items()
        for seed, score in enumerate(own)
    )
    assert compared_for_best(table, "game").shape == (10, 2)
    assert best_estimators(table, "game") == ["dense"]
    assert why_left_out(table, "game") == {"rloo": "seeds missing"}
    assert best_estimators(table[table["seed"] < 3], "game") == ["rloo", "sfe"]


def test_seeds_of_one_alone_leave_the_others_in() -> None:
    table = grid(["game"], NAMES, 9)
    more = table_of([cell("game", "rloo", 9, 0.9)])
    assert compared_for_best(pd.concat([table, more]), "game").shape == (9, 3)
    assert why_left_out(table, "game") == {}


def test_statistics_of_the_score() -> None:
    table = table_of([cell("game", "sfe", s, v) for s, v in enumerate([0.1, 0.2, 0.3, 0.8])])
    found = score_statistics(table, "game").loc["sfe"]
    assert found["seeds"] == 4
    assert found["mean"] == pytest.approx(0.35)
    assert found["median"] == pytest.approx(0.25)
    assert found["interquartile_mean"] == pytest.approx(0.25)
    assert found["standard_error"] == pytest.approx(np.std([0.1, 0.2, 0.3, 0.8], ddof=1) / 2)


def test_the_baseline_is_the_exact_sum_or_what_ran_most() -> None:
    assert choose_baseline(grid(["game"], NAMES, 1)) == "dense"
    assert choose_baseline(grid(["game"], ["sfe", "rloo"], 1)) == "rloo"
    assert choose_baseline(grid(["game"], NAMES, 1), "sfe") == "sfe"
    assert choose_baseline(grid(["game"], ["none"], 1)) is None
    with pytest.raises(UnknownBaselineError, match="these results have dense, rloo, sfe"):
        choose_baseline(grid(["game"], NAMES, 1), "dens")


def test_a_baseline_that_did_not_run_on_a_task_gives_no_differences() -> None:
    assert differences(grid(["game"], ["sfe", "rloo"], 3), "game", "dense").empty


def test_normalised_scores_reach_from_the_worst_mean_to_the_best() -> None:
    frame = pd.DataFrame({"a": [1.0, 3.0], "b": [4.0, 6.0], "none": [0.0, 0.0]})
    assert normalised(frame, True).mean().tolist() == pytest.approx([0.4, 1.0, 0.0])
    assert normalised(frame, False).mean().tolist() == pytest.approx([0.6, 0.0, 1.0])
    assert (normalised(frame[["a"]], True).mean() == 0).all()


def test_over_tasks_orders_by_mean_rank() -> None:
    """Better by accuracy is last by bits a dimension: ranks turn round."""
    found = over_tasks(grid(["a", "b"], NAMES, 6, noise=0.001), "sfe")
    assert list(found.index) == ["dense", "rloo", "sfe"]
    assert found["rank"].tolist() == [1, 2, 3]
    assert found["rank_low"].isna().all()  # the same at every seed: no spread to judge by
    assert found.loc["dense", "improvement"] > 0.8
    assert np.isnan(found.loc["sfe", "improvement"])
    mixed = over_tasks(grid(["a", "bitvector"], NAMES, 6, noise=0.001), "sfe")
    assert mixed["rank"].tolist() == [2, 2, 2]


def test_over_tasks_leaves_out_what_ran_on_some_only() -> None:
    both = grid(["a", "b"], NAMES, 6)
    extra = grid(["b"], ["sparsemap"], 6)
    assert set(over_tasks(pd.concat([both, extra]), "dense").index) == set(NAMES)
    assert over_tasks(grid(["a"], NAMES, 6), "dense").empty


def test_over_tasks_waits_for_seeds_and_ranks_failures_last() -> None:
    table = grid(["a", "b"], NAMES, 6, noise=0.001)
    running = table[
        ~((table["task"] == "b") & (table["seed"] == 5) & (table["estimator"] == "sfe"))
    ]
    assert set(over_tasks(running, "sfe")["seeds"]) == {5}
    lost = table_of([cell("b", "sfe", 5, 0.1, status="failed")])
    assert set(over_tasks(pd.concat([running, lost]), "sfe")["seeds"]) == {6}
    best_fails = table[
        ~((table["task"] == "b") & (table["seed"] == 5) & (table["estimator"] == "dense"))
    ]
    lost = table_of([cell("b", "dense", 5, 0.1, status="diverged")])
    found = over_tasks(pd.concat([best_fails, lost]), "sfe")
    assert found.loc["dense", "rank"] == pytest.approx((11 * 1 + 3) / 12)


def test_over_tasks_ranks_what_lost_every_run_of_a_task_last() -> None:
    table = grid(["a", "b"], NAMES, 6, noise=0.001)
    table = table[~((table["task"] == "b") & (table["estimator"] == "dense"))]
    lost = table_of([cell("b", "dense", seed, 0.1, status="diverged") for seed in range(6)])
    found = over_tasks(pd.concat([table, lost]), "sfe")
    assert found["rank"].to_dict() == {"rloo": 1.5, "dense": 2, "sfe": 2.5}
    assert found.loc["dense", "improvement"] == pytest.approx(0.5, abs=0.1)
    skipped = table_of([cell("b", "dense", seed, 0.1, status="skipped") for seed in range(6)])
    assert set(over_tasks(pd.concat([table, skipped]), "sfe").index) == {"rloo", "sfe"}


def test_a_run_that_failed_counts_no_more_than_the_worst_that_ended() -> None:
    cells = [
        cell(task, name, seed, score, status="ok" if seed % 2 or name != "rloo" else "diverged")
        for task in ("a", "b")
        for seed in range(6)
        for name, score in (
            ("none", 0.2), ("dense", 0.9), ("sfe", (0.1, 0.6)[seed % 2]), ("rloo", 0.6),
        )
    ]  # fmt: skip
    found = over_tasks(table_of(cells), "dense")
    assert found["iqm"].to_dict() == pytest.approx({"dense": 1, "rloo": 1.5 / 7, "sfe": 1.5 / 7})


def test_changes_are_of_the_same_estimator_at_the_same_seeds() -> None:
    effects = [0.1, 0.9, 0.5, 0.3]
    before = [cell("game", "rloo", s, effects[s]) for s in range(4)]
    after = [cell("game", "rloo", s, effects[s] + 0.02 + 0.01 * (s % 2)) for s in (2, 1, 0)]
    new = table_of([*after, cell("game", "sfe", 0, 0.5)])
    found = changes(new, table_of(before), "game")
    assert list(found.index) == ["rloo"]
    assert found.loc["rloo", "seeds"] == 3
    assert found.loc["rloo", "difference"] == pytest.approx(0.07 / 3)
    assert found.loc["rloo", "statement"] == "none: needs 6 seeds"


def test_other_data_or_another_model_is_not_compared() -> None:
    settings = json.loads(COMMON["hyperparameters"])
    other = json.dumps(settings | {"task": {"hidden": 2}})
    tuned = json.dumps(settings | {"training": {"lr": 2}})
    table = grid(["game"], NAMES, 3)
    changes(table.assign(hyperparameters=tuned), table, "game")
    with pytest.raises(ResultsError, match="can't be compared on game: they differ in task"):
        changes(table.assign(hyperparameters=other), table, "game")
