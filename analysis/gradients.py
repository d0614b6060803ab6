"""Tables and the report of gradient quality, from the rows that `pooled` makes."""

import math
from pathlib import Path

import pandas as pd

from analysis.figures import save_row
from analysis.files import write_whole
from analysis.gradient_figures import (
    bias_against_variance,
    bias_along_settings,
    bias_along_training,
    effect_of,
    variance_against_calls,
    variance_against_time,
    variance_along_training,
)
from analysis.gradient_rows import (
    COUNTS,
    GROUP,
    NOISE,
    Z,
    at_own_settings,
    last,
    pooled,
    resampled,
)
from analysis.load import load_gradients
from analysis.tables import COLUMNS, costs, markdown
from analysis.texts import in_markdown
from analysis.times import told

GROUPS = ("scores", "encoder", "decoder")


def quality_table(rows: pd.DataFrame, task: str, group: str = GROUP) -> pd.DataFrame:
    """The last checkpoint in numbers: a line for each estimator, and for each setting turned."""
    here = last(rows, task, group).sort_values(
        ["estimator", "knob", "knob_value"], na_position="first"
    )
    lines = {}
    for _, row in here.iterrows():
        turned = "" if pd.isna(row["knob"]) else f", {row['knob']} = {row['knob_value']:g}"
        lines[f"{row['estimator']}{turned}"] = {
            "bias": _bias(row),
            "cosine": _cosine(row),
            "variance": _variance(row["variance"]),
            "MSE": _variance(row["mean_squared_error"]),
            **{COLUMNS[name][0]: _tenths(row[name]) for name in costs(here)},
            "ms": _tenths(1e3 * row["seconds"]),
            "objective's distance": f"{row['distance']:.2f}",
            "draws": f"{row['draws']:.0f}",
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def budget_table(rows: pd.DataFrame, task: str, group: str = GROUP) -> pd.DataFrame:
    """Variance at equal decoder calls, equal work and equal time: a line for each estimator.

    At equal calls it is measured, with as many samples as make these calls. At equal work (calls
    and slopes) or time, those of the dearest estimate at the most calls, it is that of a mean of
    independent estimates of the most calls, as many (a fraction, too) as these allow. Sums have
    none where that suffices.
    """
    here = last(rows, task, group)
    here = here.assign(work=here["decoder_calls"] + here["slopes"].fillna(0))
    sampled = resampled(here)
    turned = sampled.loc[sampled["knob"].isin(COUNTS), "decoder_calls"]
    most = sampled[sampled["decoder_calls"] == turned.max()]
    work, time = float(most["work"].max()), float(most["seconds"].max())
    lines = {}
    for _, row in at_own_settings(here).sort_values("estimator").iterrows():
        name, own = row["estimator"], sampled[sampled["estimator"] == row["estimator"]]
        line = {
            "variance as set": _variance(row["variance"]),
            "calls": _tenths(row["decoder_calls"]),
            **{COLUMNS[name][0]: _tenths(row[name]) for name in costs(here)[1:]},
        }
        for calls in sorted(turned.unique()):
            line[f"at {calls:g} calls"] = _at(own, calls, row)
        largest = most[most["estimator"] == name]
        if work > turned.max():
            line[f"in {work:g} calls and slopes"] = _within(row, largest, "work", work)
        if not math.isnan(time):
            line[f"in {1e3 * time:.1f} ms"] = _within(row, largest, "seconds", time)
        lines[name] = line
    return pd.DataFrame.from_dict(lines, orient="index")


def _at(own: pd.DataFrame, calls: float, base: pd.Series) -> str:
    """The variance that was measured at so many calls."""
    there = own[own["decoder_calls"] == calls]
    if len(there):
        return _variance(there.iloc[0]["variance"])
    if base["decoder_calls"] == calls:
        return _variance(base["variance"])
    return _of_sum(base, base["decoder_calls"] <= calls)


def _within(row: pd.Series, largest: pd.DataFrame, what: str, most: float) -> str:
    """The variance of a mean of as many estimates of the most calls as a budget allows."""
    if len(largest):
        one = largest.iloc[0]
        return _variance(one["variance"] * one[what] / most)
    return _of_sum(row, row[what] <= most)


def _of_sum(row: pd.Series, affordable: bool) -> str:
    return "0" if _is_sum(row) and affordable else "–"


def group_table(rows: pd.DataFrame, task: str) -> pd.DataFrame:
    """Bias and signal to noise for each group of parameters, of estimators as they are set.

    Signal to noise is ‖exact gradient‖ / √tr Var of a single estimate.
    """
    lines: dict[str, dict[str, str]] = {}
    for group in GROUPS:
        for _, row in at_own_settings(last(rows, task, group)).sort_values("estimator").iterrows():
            line = lines.setdefault(row["estimator"], {})
            line[f"{group}: bias"] = _bias(row)
            ratio = f"{row['signal_to_noise']:.3g}"
            line[f"{group}: signal / noise"] = "∞" if _is_sum(row) else ratio
    return pd.DataFrame.from_dict(lines, orient="index")


def overview(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each estimator: bias as it is set, and variance at the fewest calls of the sweep.

    Sums have their own number of calls beside their variance of zero.
    """
    lines: dict[str, dict[str, str]] = {}
    for task in sorted(rows["task"].unique()):
        here = last(rows, task, GROUP)
        sampled = resampled(here)
        calls = sampled.loc[sampled["knob"].isin(COUNTS), "decoder_calls"].min()
        for _, row in at_own_settings(here).sort_values("estimator").iterrows():
            own = sampled[sampled["estimator"] == row["estimator"]]
            alone = f"0 ({row['decoder_calls']:.1f} calls)" if _is_sum(row) else ""
            line = lines.setdefault(row["estimator"], {})
            line[f"{task}: bias"] = _bias(row)
            line[f"{task}: variance"] = alone or _at(own, calls, row)
    return pd.DataFrame.from_dict(lines, orient="index").sort_index().fillna("")


def _is_sum(row: pd.Series) -> bool:
    return bool(row["variance"] < NOISE)


def _bias(row: pd.Series) -> str:
    """The bias with its interval; where none is found, what it is below.

    One that is found where the estimator has none by its own account is marked, and so is that of
    an objective that has no gradient.
    """
    if _is_sum(row) and row["bias_high"] < 1e-6:
        return "0 ‡" if row["flat"] else "0"
    if row["bias_low"] > 0:
        mark = "" if row["declared"] == "biased" else " †"
        return f"{row['bias']:.2f} ({row['bias_low']:.2f} to {row['bias_high']:.2f}){mark}"
    return f"< {row['bias_high']:.2g}"


def _cosine(row: pd.Series) -> str:
    """The cosine with its 95% interval; a dash where noise leaves nothing to say."""
    if pd.isna(row["cosine"]) or pd.isna(row["cosine_error"]):
        return "–"
    if _is_sum(row):
        return f"{row['cosine']:.3f}"
    return f"{row['cosine']:.3f} ± {Z * row['cosine_error']:.3f}"


def _variance(value: float) -> str:
    if pd.isna(value):
        return "–"
    return "0" if value < NOISE else f"{value:.3g}"


def _tenths(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.1f}"


def write_gradient_report(folder: Path) -> list[Path]:
    """Write `report.md` and `figures/` into a folder of gradient measurements.

    Raises:
        ResultsError: the folder can't be read.
    """
    table = load_gradients(folder)
    rows = pooled(table)
    figures = save_gradient_figures(rows, folder / "figures")
    parts = [
        f"# {in_markdown(folder.name)}",
        _OVERVIEW,
        _over_seeds(rows),
        markdown(overview(rows), "estimator"),
    ]
    if mixed := told(table[table["status"] == "ok"]):
        parts.append(f"{mixed}: times are those of most cells of a task.")
    for task in sorted(rows["task"].unique()):
        parts += [f"## {task}", _QUALITY, markdown(quality_table(rows, task), task)]
        parts += [_BUDGET, markdown(budget_table(rows, task), task)]
        parts += [_GROUPS, markdown(group_table(rows, task), task)]
    failed = table[~table["status"].isin(["ok", "skipped"])].drop_duplicates("key")
    parts += [
        f"- {in_markdown(f'{r.task} {r.estimator} {r.seed}: {r.status}: {r.reason}')}"
        for r in failed.itertuples()
    ]
    parts += [f"![{path.stem}](figures/{path.name})" for path in figures]
    path = folder / "report.md"
    write_whole(path, "\n\n".join(parts) + "\n")
    return [path, *figures]


_OVERVIEW = (
    f"Gradients of the {GROUP}'s parameters at the last checkpoint, relative to the exact one: "
    "bias of estimators as they are set (with a 95% interval, or what it is below where none was "
    "found) and variance of one estimate at equal decoder calls, the fewest of the tables below. "
    "† By its own account the estimator has no bias: chance, one time in "
    "twenty, or an outcome so rare that no draw has seen it, for which no interval has room. ‡ Its "
    "own objective has no gradient here (at one seed at least): q is sure of one assignment."
)


def _over_seeds(rows: pd.DataFrame) -> str:
    """How many seeds the means are over, and which are over fewer."""
    if rows.empty:
        return "No measurement is ok."
    most = int(rows["seeds"].max())
    fewer = rows[rows["seeds"] < most].drop_duplicates(["task", "estimator"])
    names = ", ".join(f"{row.task} {row.estimator}" for row in fewer.itertuples())
    said = f"Means over {most} seed{'s' * (most != 1)}"
    return f"{said}, over fewer of {names}." if names else f"{said}."


_QUALITY = "As set, and with one setting turned at a time; variance and MSE are of one estimate."
_BUDGET = (
    "Variance at equal decoder calls, measured with as many samples as make them, and at equal "
    "work (calls and slopes) and time, reckoned for a mean of independent estimates of the most "
    "calls."
)
_GROUPS = "By group of parameters: bias, and ‖exact gradient‖ / √tr Var of one estimate."


def save_gradient_figures(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw everything that there is anything of."""
    draws = (
        variance_against_calls, variance_against_time, bias_against_variance,
        variance_along_training, bias_along_training,
    )  # fmt: skip
    tasks = sorted(rows["task"].unique())
    paths = [save_row(rows, tasks, draw, folder) for draw in draws if tasks]
    traded = rows[(rows["declared"] == "biased") & ~rows["knob"].isin(COUNTS)]
    if with_it := sorted(traded.dropna(subset="knob")["task"].unique()):
        paths.append(save_row(rows, with_it, bias_along_settings, folder))
    for knob in sorted(rows["knob"].dropna().unique()):
        with_it = sorted(rows.loc[rows["knob"] == knob, "task"].unique())
        paths.append(save_row(rows, with_it, effect_of(knob), folder))
    return paths
