"""What the HTML page draws: the results reduced to what is shown, as plain lists and dicts.

Numbers keep five significant digits, and what is not finite becomes None. Means of curves are taken
here, so that they do not grow with the number of seeds; single runs are thinned to fit `MOST`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb

from analysis.load import FLOOR, cell_rows, final_rows, while_all_go_on
from analysis.scores import SCORES, ended_badly, judged, score_of
from analysis.stored import CELLS
from analysis.style import colour, linestyle, marker
from analysis.tables import COLUMNS, SELDOM
from analysis.times import comparable

MOST = 400_000
"""Numbers in the curves of single runs of all tasks: some three megabytes."""

POINTS = 200
"""Points of a curve, at most: there are few more pixels."""

FEWEST_POINTS = 25
"""Points of a single run, at least; where they do not fit, later seeds are left out."""

AXES = ("epoch", "train_seconds", "decoder_calls_total")
"""What curves are drawn against."""

COSTS = ("decoder_calls", *SELDOM, "train_seconds")
"""Columns of a summary that are no metric of the model."""

KEPT = ("task", "estimator", "seed", "key", "status", "split", "selection", "step", "chance")
"""What is needed of a row beside its numbers."""

SYMBOLS: dict[Any, str] = {
    "o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down",
    "P": "cross", "<": "triangle-left", ">": "triangle-right", "X": "x", "p": "pentagon",
    "d": "diamond-tall", "*": "star", ".": "circle", (4, 1, 0): "star-diamond",
    (3, 1, 0): "star-triangle-up", (3, 1, 180): "star-triangle-down",
}  # fmt: skip
"""matplotlib's markers by the names that plotly has for them."""

DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}
"""The same of its lines."""

LUMA = np.array([0.299, 0.587, 0.114])
"""Shares of red, green and blue in how bright a colour is."""

BRIGHT = 0.5
"""Least brightness of an estimator's colour on a dark page."""

Json = dict[str, Any]


def page_data(table: pd.DataFrame, folder: Path) -> Json:
    """Everything that the page's script reads."""
    tasks = sorted(str(task) for task in table["task"].unique())
    fair = table.assign(train_seconds=comparable(table, "train_seconds"))
    numbers = fair.reindex(columns=[*dict.fromkeys((*KEPT, *AXES, *COLUMNS))])
    return {
        "tasks": {
            task: _task(numbers[numbers["task"] == task], MOST // len(tasks))
            | {"lost": _lost(table, task)}
            for task in tasks
        },
        "estimators": {name: _style(name) for name in estimators(table)},
        "cells": _cells(table, folder),
        "metrics": {
            name: {"label": label, "format": fmt, "better": _better(name)}
            for name, (label, fmt) in COLUMNS.items()
        },
    }


def estimators(table: pd.DataFrame) -> list[str]:
    """Names in the order of the tables: alphabetical, the floor last."""
    return sorted(
        (str(name) for name in table["estimator"].unique()), key=lambda n: (n == FLOOR, n)
    )


def rounded(values: Iterable[float]) -> list[float | None]:
    """Five significant digits of each; None where it is not finite."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]


def _task(table: pd.DataFrame, most: int) -> Json:
    """One task: its metrics, final scores by estimator, and curves, with at most so many numbers in
    those of single runs."""
    final = final_rows(table)
    shown = table[table["split"] == "validation"]
    in_curves = [name for name in COLUMNS if name not in COSTS and _has(shown[name])]
    metrics = [name for name in COLUMNS if name not in COSTS and _has(final[name])]
    chance = table["chance"].dropna()
    return {
        "metrics": metrics,
        "score": next((name for name, _, _ in SCORES if name in metrics), None),
        "curveMetrics": in_curves,
        "curveScore": score_of(shown)[0] if in_curves else None,
        "chance": None if chance.empty else rounded([chance.iloc[0]])[0],
        "final": _final(final, [*metrics, *COSTS]),
        "means": _means(shown[shown["status"] == "ok"], in_curves),
        **_runs(shown, in_curves, most),
    }


def _lost(table: pd.DataFrame, task: str) -> dict[str, int]:
    """How many runs of a task gave no score, for each estimator that has any such."""
    bad = ended_badly(table, task)
    return {str(name): int(count) for name, count in bad[bad > 0].items()}


def _final(final: pd.DataFrame, columns: list[str]) -> Json:
    """Mean, standard error and count over seeds, for each estimator and column."""
    return {
        str(name): {
            column: rounded(own[column].agg(["mean", "sem", "count"])) for column in columns
        }
        for name, own in _finite(final, columns).groupby("estimator")
    }


def _means(rows: pd.DataFrame, metrics: list[str]) -> Json:
    """Curves as means over seeds, with standard errors, for each estimator, while all go on."""
    found: Json = {}
    rows = while_all_go_on(_finite(rows, [*AXES, *metrics]))
    for name, own in rows.groupby("estimator"):
        by_step = own.groupby("step")
        thin = _thin(by_step.ngroups, POINTS)
        middle = by_step[[*AXES, *metrics]].mean().iloc[thin]
        error = by_step[metrics].sem().iloc[thin]
        found[str(name)] = {column: rounded(middle[column]) for column in middle} | {
            f"{column} error": rounded(error[column]) for column in metrics
        }
    return found


def _runs(rows: pd.DataFrame, metrics: list[str], most: int) -> Json:
    """Curves of single runs, those included that diverged: all, or as many seeds as fit."""
    columns = [*AXES, *metrics]
    rows = rows[rows["status"].isin(["ok", "diverged"])]
    per_curve = most // max(1, rows["key"].nunique() * len(columns))
    points = min(POINTS, max(FEWEST_POINTS, per_curve))
    longest = rows.groupby("key").size().max() if len(rows) else 1
    pairs = max(1, rows["estimator"].nunique())
    fit = max(1, most // (pairs * min(points, int(longest)) * len(columns)))
    seeds = sorted(rows["seed"].unique())[:fit]
    kept = _finite(rows[rows["seed"].isin(seeds)], columns)
    kept = kept.sort_values(["estimator", "seed", "key", "step"])
    numbers = {column: rounded(kept[column]) for column in columns}
    sizes = kept.groupby(["estimator", "seed", "key"], sort=False).size()
    starts = sizes.cumsum() - sizes
    statuses = kept["status"].to_numpy()
    curves: dict[str, list[Json]] = {}
    for (name, seed, _), start, size in zip(sizes.index, starts, sizes, strict=True):
        places = [start + place for place in _thin(size, points)]
        curve: Json = {column: [values[i] for i in places] for column, values in numbers.items()}
        if statuses[start] != "ok":
            curve["diverged"] = True
        curves.setdefault(str(name), []).append({"seed": int(seed), **curve})
    return {"runs": curves, "seedsLeftOut": rows["seed"].nunique() - len(seeds)}


def _cells(table: pd.DataFrame, folder: Path) -> list[list[Any]]:
    """A row for each cell: task, estimator, seed, status, columns of a summary, seconds in all, and
    the path of its file in the folder."""
    files = {
        path.stem: quote(path.relative_to(folder).as_posix())
        for path in (folder / "cells").glob(CELLS)
    }
    last = cell_rows(table).sort_values(["task", "estimator", "seed"], kind="stable")
    tested = last["split"].eq("test") & last["status"].eq("ok")
    statuses = last["key"].map(judged(table)["status"])
    shown = last[[*COLUMNS]].astype(float).where(tested)
    for name in SELDOM:  # the page hides a column that is empty
        shown[name] = shown[name].where(shown[name].gt(0).groupby(last["task"]).transform("any"))
    numbers = [rounded(shown[name]) for name in COLUMNS]
    return [
        [str(task), str(estimator), int(seed), str(status), *values, files.get(str(key))]
        for task, estimator, seed, status, key, *values in zip(
            last["task"], last["estimator"], last["seed"], statuses, last["key"], *numbers,
            strict=True,
        )
    ]  # fmt: skip


def _style(name: str) -> Json:
    return {
        "colour": to_hex(colour(name)),
        "bright": brightened(colour(name)),
        "symbol": SYMBOLS.get(marker(name), "circle"),
        "dash": DASHES.get(linestyle(name), "longdashdot"),
    }


def brightened(colour: str) -> str:
    """A colour with as much white as it takes to be seen on a dark page."""
    own = np.array(to_rgb(colour))
    share = next(s for s in np.linspace(0, 1, 21) if (own + s * (1 - own)) @ LUMA >= BRIGHT)
    return to_hex(tuple(own + share * (1 - own)))


def _better(column: str) -> str | None:
    """Whether more or less of a metric is better, where one can say."""
    orders: Mapping[str, bool] = {name: more for name, _, more in SCORES}
    return None if column not in orders else "more" if orders[column] else "less"


def _has(column: pd.Series) -> bool:
    return bool(np.isfinite(column.astype(float)).any())


def _finite(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The rows with numbers that are not finite left out of these columns."""
    out = rows.copy()
    out[columns] = out[columns].astype(float).replace([np.inf, -np.inf], np.nan)
    return out


def _thin(count: int, most: int) -> list[int]:
    """Places of at most so many of `count` points, the first and the last included."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))})


def leading_number(text: str) -> float | None:
    """The number that a table's cell begins with, to sort by.

    Zero where that counts what gave no score, as in "10 failed".
    """
    found = re.match(r"([-+]?\d+\.?\d*(?:e[-+]?\d+)?)( [a-z])?", text.strip("* "))
    if found is None:
        return None
    return 0.0 if found[2] else float(found[1])
