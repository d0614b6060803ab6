"""Estimators compared: the frames of numbers behind the tables. docs/REPORT.md explains them."""

import json
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import FLOOR, final_rows, outcomes, settings_of
from analysis.scores import ENDED_BADLY, ended_badly, normalised, score_frame, score_of
from analysis.statistics import (
    LEAST_SEEDS,
    LEVEL,
    Floats,
    could_be_best,
    holm,
    interquartile_mean,
    interval_of,
    iqm_interval,
    mean_of_intervals,
    probability_of_improvement,
    ranks,
    seeds_needed,
    sign_flip_p,
)
from analysis.stored import ResultsError

REFERENCE = "dense"
"""The baseline unless another is chosen: the exact gradient of the whole sum."""


class UnknownBaselineError(Exception):
    """A baseline that has no cells in the results, with the estimators that have."""

    def __init__(self, name: str, known: list[str]) -> None:
        self.name, self.known = name, known
        self.listing = f"these results have {', '.join(known)}"
        super().__init__(f"no estimator {name!r}: {self.listing}")


def choose_baseline(table: pd.DataFrame, name: str | None = None) -> str | None:
    """The estimator that the others are compared with: a given one, or the default.

    By default `dense`, or else the estimator with most cells that are ok; None if there is none.

    Raises:
        UnknownBaselineError: the given one has no cells.
    """
    known = sorted(map(str, table["estimator"].unique()))
    if name is not None and name not in known:
        raise UnknownBaselineError(name, known)
    ended = final_rows(table).loc[lambda rows: rows["estimator"] != FLOOR, "estimator"]
    counts = ended.value_counts()
    most = min((str(one) for one in counts[counts == counts.max()].index), default=None)
    return name or (REFERENCE if REFERENCE in counts else most)


def score_statistics(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Of the test score of each estimator: seeds, mean, standard error, t interval and more.

    Returns:
        a row for each estimator with scores; columns seeds, ended_badly, mean, standard_error,
        low, high, median, interquartile_mean, could_be_best.
    """
    frame = score_frame(table, task)
    bad = ended_badly(table, task)
    best = best_estimators(table, task)
    lines: dict[str, dict[str, Any]] = {}
    for name in map(str, frame.columns):
        scores = frame[name].dropna()
        mean, low, high = interval_of(scores.to_numpy(float))
        lines[name] = {
            "seeds": len(scores),
            "ended_badly": int(bad.get(name, 0)),
            "mean": mean,
            "standard_error": scores.sem(),
            "low": low,
            "high": high,
            "median": scores.median(),
            "interquartile_mean": interquartile_mean(scores.to_numpy(float)),
            "could_be_best": name in best,
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def best_estimators(table: pd.DataFrame, task: str) -> list[str]:
    """The estimators that could have the highest expected score of a task; see `could_be_best`.

    Of those in `compared_for_best`. Empty if nothing can be said: `why_none_is_best` says why.
    """
    frame = compared_for_best(table, task)
    return list(frame.columns[could_be_best(frame.to_numpy(float))]) if len(frame) else []


def compared_for_best(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """The scores that say which estimators could be best, more being better, without gaps.

    Of the most seeds that any two candidates share, and of all candidates that have these: one with
    few seeds is left out, so that the others are compared on more than its own. Empty if there are
    too few.
    """
    frame = _candidates(table, task)
    has = frame.notna().to_numpy(int)
    shared = np.triu(has.T @ has, k=1)
    if shared.max(initial=0) < LEAST_SEEDS:
        return frame.iloc[:0]
    first, second = np.unravel_index(shared.argmax(), shared.shape)
    return frame[(has[:, first] & has[:, second]) > 0].dropna(axis="columns")


def why_none_is_best(table: pd.DataFrame, task: str) -> str:
    """Why `best_estimators` is empty, in words."""
    seeds = score_frame(table, task).drop(columns=FLOOR, errors="ignore").notna().sum()
    takes = f"that takes two estimators with {LEAST_SEEDS} seeds at least"
    if (seeds >= LEAST_SEEDS).sum() < 2:
        return takes
    if _candidates(table, task).shape[1] < 2:
        return f"{takes} and no run that failed, diverged or gave no score"
    return f"no two of those that could be have {LEAST_SEEDS} seeds in common"


def why_left_out(table: pd.DataFrame, task: str) -> dict[str, str]:
    """Why estimators with scores are not in `compared_for_best`, by their names."""
    frame = score_frame(table, task).drop(columns=FLOOR, errors="ignore")
    bad = ended_badly(table, task)
    compared = compared_for_best(table, task)
    return {
        name: "runs lost" if bad.get(name, 0) else "seeds missing"
        for name in map(str, frame.columns)
        if name not in compared
    }


def _candidates(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Scores of those that can be called best, more being better.

    No candidates are the floor, and what failed or diverged on any seed: the mean over the seeds
    that ended flatters it.
    """
    frame = _oriented(table, task).drop(columns=FLOOR, errors="ignore")
    bad = ended_badly(table, task).reindex(frame.columns).fillna(0)
    return frame.loc[:, (bad == 0) & (frame.notna().sum() >= LEAST_SEEDS)]


def differences(table: pd.DataFrame, task: str, baseline: str) -> pd.DataFrame:
    """Test scores minus those of a baseline at the same seeds.

    Returns:
        a row for each other estimator, empty if the baseline has no scores; columns seeds (shared),
        difference with low and high (t interval of this one difference), p (sign flips, adjusted
        for all comparisons of the task), improvement with improvement_low and improvement_high (the
        probability of improvement over the baseline), statement.
    """
    frame = score_frame(table, task)
    if baseline not in frame:
        return pd.DataFrame()
    bad = ended_badly(table, task)
    others = [name for name in map(str, frame.columns) if name != baseline]
    return _compared(
        table,
        task,
        {name: frame[[name, baseline]] for name in others},
        {name: int(bad.get(name, 0) + bad.get(baseline, 0)) for name in others},
    )


def changes(table: pd.DataFrame, earlier: pd.DataFrame, task: str) -> pd.DataFrame:
    """Test scores minus those of the same estimators in an earlier table, at the same seeds.

    Returns:
        a row for each estimator that both have scores of; columns as of `differences`.
    Raises:
        ResultsError: the tables differ in more than settings of estimators and of training.
    """
    for name in ("task", "evaluation", "dataset_digest"):
        found = [_setting(rows[rows["task"] == task], name) for rows in (table, earlier)]
        if found[0] != found[1]:
            raise ResultsError(
                f"the two folders can't be compared on {task}: they differ in {name}"
            )
    new, old = score_frame(table, task), score_frame(earlier, task)
    bad = ended_badly(table, task).add(ended_badly(earlier, task), fill_value=0)
    both = [name for name in map(str, new.columns) if name in old]
    return _compared(
        table,
        task,
        {name: pd.concat([new[name], old[name]], axis="columns", join="inner") for name in both},
        {name: int(bad.get(name, 0)) for name in both},
    )


def _setting(rows: pd.DataFrame, name: str) -> list[str]:
    """The values of a part of the hyper-parameters, as JSON."""
    parts = (settings_of(text).get(name) for text in rows["hyperparameters"].unique())
    return sorted({json.dumps(part, sort_keys=True) for part in parts})


def _compared(
    table: pd.DataFrame, task: str, pairs_of: dict[str, pd.DataFrame], bad: dict[str, int]
) -> pd.DataFrame:
    """Statistics of pairs of scores, of many comparisons at once.

    Args:
        table: says what a task's score is.
        task: whose scores they are.
        pairs_of: for each comparison a row for each seed, our score and theirs.
        bad: for each comparison how many runs gave no score.
    """
    sign = 1 if score_of(final_rows(table[table["task"] == task])).more_is_better else -1
    lines: dict[str, dict[str, Any]] = {}
    for name, pairs in pairs_of.items():
        ours, theirs = pairs.dropna().to_numpy(float).T
        if len(ours) == 0:
            continue
        lines[name] = {"seeds": len(ours)}
        lines[name] |= _named("difference", "low", "high", interval_of(ours - theirs))
        lines[name]["p"] = sign_flip_p(ours - theirs)
        improvement = probability_of_improvement(sign * ours, sign * theirs)
        lines[name] |= _named("improvement", "improvement_low", "improvement_high", improvement)
    found = pd.DataFrame.from_dict(lines, orient="index")
    if found.empty:
        return found
    found["p"] = holm(found["p"].to_numpy(float))
    found["statement"] = [
        _statement(row, sign, bad[str(name)], len(found)) for name, row in found.iterrows()
    ]
    return found


def over_tasks(table: pd.DataFrame, baseline: str | None) -> pd.DataFrame:
    """Estimators compared over all tasks, as far as they ran on every one.

    Over the seeds at which all of them have ended, well or not. A run that failed or diverged takes
    the last rank, and the lowest normalised score of any run on the task.

    Returns:
        a row for each estimator, best rank first; columns seeds, tasks, rank, iqm and improvement
        (over the baseline), each with _low and _high. Empty for less than two tasks or estimators.
    """
    tasks = sorted(final_rows(table)["task"].unique())
    tasks = [task for task in tasks if not score_frame(table, task).empty]
    cells = _ended(table, tasks)
    names = _on_all(cells, tasks)
    if len(tasks) < 2 or len(names) < 2:
        return pd.DataFrame()
    seeds = _ended_seeds(cells, tasks, names)
    if not seeds:
        return pd.DataFrame()
    frames = [_oriented(table, task) for task in tasks]
    signed = np.stack([_of_runs(frame, seeds, names) for frame in frames])
    mean_ranks = ranks(signed).mean(axis=0)
    scaled = [normalised(frame, more_is_better=True) for frame in frames]
    # Runs below the worst mean have less than 0: what failed has no more than they.
    shares = np.stack(
        [np.nan_to_num(_of_runs(one, seeds, names), nan=one.min().min()) for one in scaled]
    )
    lowest = np.nan_to_num(signed, nan=-np.inf)
    lines: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(names):
        line: dict[str, Any] = {"seeds": len(seeds), "tasks": len(tasks)}
        rank, low, high = interval_of(mean_ranks[:, place])
        possible = float(np.maximum(low, 1)), float(np.minimum(high, len(names)))
        line |= _named("rank", "rank_low", "rank_high", (rank, *possible))
        line |= _named("iqm", "iqm_low", "iqm_high", iqm_interval(shares[:, :, place].T))
        if baseline in names and name != baseline:
            theirs = lowest[:, :, names.index(baseline)]
            parts = [
                probability_of_improvement(ours, them)
                for ours, them in zip(lowest[:, :, place], theirs, strict=True)
            ]
            mean = mean_of_intervals(parts)
            line |= _named("improvement", "improvement_low", "improvement_high", mean)
        lines[name] = line
    return pd.DataFrame.from_dict(lines, orient="index").sort_values("rank", kind="stable")


def _named(estimate: str, low: str, high: str, interval: Any) -> dict[str, float]:
    """An interval as three named numbers."""
    return dict(zip((estimate, low, high), interval, strict=True))


def _statement(row: pd.Series, sign: int, bad: int, comparisons: int) -> str:
    if bad:
        return "none: runs are missing"
    if row["p"] <= 1 - LEVEL:
        return "better" if sign * row["difference"] > 0 else "worse"
    needed = seeds_needed(comparisons)
    return f"none: needs {needed} seeds" if row["seeds"] < needed else "no difference found"


def _oriented(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Scores of a task with the sign that makes more better."""
    rows = final_rows(table[table["task"] == task])
    frame = score_frame(table, task)
    return frame if score_of(rows).more_is_better else -frame


def _ended(table: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    """The cells of some tasks that have ended, well or not, the floor's left out; each once."""
    cells = outcomes(table)
    cells = cells[cells["task"].isin(tasks) & (cells["estimator"] != FLOOR)]
    cells = cells[cells["status"].isin(["ok", *ENDED_BADLY])]
    return cells.drop_duplicates(["task", "estimator", "seed"])


def _on_all(cells: pd.DataFrame, tasks: list[str]) -> list[str]:
    """The estimators that have cells on every task, be it one that lost them all."""
    on = cells.groupby("estimator")["task"].nunique()
    return sorted(map(str, on.index[on == len(tasks)]))


def _ended_seeds(cells: pd.DataFrame, tasks: list[str], names: list[str]) -> list[int]:
    """The seeds at which every estimator has ended on every task."""
    ended = cells[cells["estimator"].isin(names)].groupby("seed").size()
    return [int(seed) for seed in ended.index[ended == len(tasks) * len(names)]]


def _of_runs(frame: pd.DataFrame, seeds: list[int], names: list[str]) -> Floats:
    """Scores of seeds (rows) and estimators, (n, k), NaN where a frame has none."""
    return frame.reindex(index=seeds, columns=names).to_numpy(float)
