"""Tables: a row for each estimator, as frames of text, and these as Markdown, LaTeX and CSV."""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.comparisons import score_statistics
from analysis.files import write_whole
from analysis.load import FLOOR, final_rows, last_rows, start_rows
from analysis.scores import Score, judged, score_of
from analysis.texts import in_markdown
from analysis.times import circumstances, differing

COLUMNS = {
    "accuracy": ("accuracy", ".3f"),
    "agreement": ("agreement", ".3f"),
    "loss": ("loss (nats)", ".3f"),
    "elbo": ("ELBO (nats)", ".2f"),
    "nll": ("NLL (bits/dim)", ".3f"),
    "rate": ("rate (nats)", ".2f"),
    "distortion": ("distortion (nats)", ".2f"),
    "on_vertex": ("P(vertex)", ".2f"),
    "on_edge": ("P(edge)", ".2f"),
    "face_vertices": ("vertices", ".2f"),
    "rounded_elbo": ("rounded: ELBO (nats)", ".2f"),
    "rounded_nll": ("rounded: NLL (bits/dim)", ".3f"),
    "rounded_loss": ("rounded: loss (nats)", ".3f"),
    "support_mean": ("support", ".1f"),
    "decoder_calls": ("decoder calls", ".1f"),
    "slopes": ("slopes", ".1f"),
    "oracle_calls": ("oracle calls", ".1f"),
    "train_seconds": ("seconds", ".1f"),
}
"""Columns of a summary: header and format of each."""

SELDOM = ("slopes", "oracle_calls")
"""Costs that few estimators have: a table has a column for one only if a row of it has any."""


def summary(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Test metrics of a task: a row for each estimator, "mean ± standard error" over seeds.

    All are of the model that was best on validation, but for the score of the last one in a column
    of its own. Among the seeds stands what became of cells that gave no score. The floors follow at
    the end: the estimator `none`, the model that its training starts from (on validation) and
    chance. Seconds are left out where they can't be compared: see `seconds`.
    """
    here = table[table["task"] == task]
    final = final_rows(here)
    names = [name for name in sorted(here["estimator"].unique()) if name != FLOOR]
    floor = here[here["estimator"] == FLOOR]
    if not floor.empty:
        names.append(FLOOR)
    cells = judged(here)
    rows = {
        name: _row(final[final["estimator"] == name])
        | {"seeds": _count(cells[cells["estimator"] == name])}
        for name in names
    }
    if not floor.empty:
        rows["start"] = _row(start_rows(floor))
    chance = here["chance"].dropna()
    if not chance.empty:
        rows["chance"] = {"accuracy": format(chance.iloc[0], ".3f")}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    unused = _unused(final)
    present = [
        name
        for name in COLUMNS
        if name in frame and name not in unused and _is_shown(frame[name], final, name)
    ]
    headers = {name: COLUMNS[name][0] for name in present}
    frame = frame[["seeds", *present]].rename(columns=headers)
    last = last_rows(here)
    score = score_of(last).column
    if score in present and not last.empty:
        header, fmt = COLUMNS[score]
        scores = last.groupby("estimator")[score]
        place = 1 + list(frame).index(header)
        means = scores.apply(lambda values: _mean(values.dropna(), fmt))
        frame.insert(place, f"last {header}", means)
    return frame.fillna("")


def seconds(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Seconds of training with a column for each of the circumstances that cells ran under.

    Empty where all ran under equal ones, and `summary` has the seconds.
    """
    final = final_rows(table[table["task"] == task]).dropna(subset=["train_seconds"])
    if not differing(final):
        return pd.DataFrame()
    cells = final.groupby(["estimator", circumstances(final)])["train_seconds"]
    fmt = COLUMNS["train_seconds"][1]
    texts = cells.apply(lambda values: f"{_mean(values, fmt)} ({len(values)})")
    return texts.unstack().fillna("").rename_axis(index=None, columns=None)


def differences_table(found: pd.DataFrame, score: Score) -> pd.DataFrame:
    """What `comparisons.differences` found of scores of some kind, in text, best first."""
    found = found.sort_values("difference", ascending=not score.more_is_better, kind="stable")
    fmt = COLUMNS[score.column][1]
    return pd.DataFrame(
        {
            "seeds": found["seeds"].astype(str),
            score.label: _intervals(found, "difference", "low", "high", f"+{fmt}"),
            "P(better)": _intervals(
                found, "improvement", "improvement_low", "improvement_high", ".2f"
            ),
            "p": found["p"].map("{:.2g}".format).where(~found["statement"].str.startswith("none")),
            "statement": found["statement"],
        }
    ).fillna("")


def over_tasks_table(found: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """What `comparisons.over_tasks` found, in text."""
    columns = {
        "seeds": found["seeds"].astype(str),
        "mean rank": _intervals(found, "rank", "rank_low", "rank_high", ".1f"),
        "interquartile mean": _intervals(found, "iqm", "iqm_low", "iqm_high", ".2f"),
    }
    if "improvement" in found:
        columns[f"P(better than {baseline})"] = _intervals(
            found, "improvement", "improvement_low", "improvement_high", ".2f"
        )
    return pd.DataFrame(columns, index=found.index)


def metrics(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """What `summary` says, in numbers: means and standard errors, and statistics of the score."""
    final = final_rows(table[table["task"] == task])
    grouped, unused = final.groupby("estimator"), _unused(final)
    wide = pd.DataFrame(
        {
            f"{name}_{what}": getattr(grouped[name], function)()
            for name in COLUMNS
            if name not in unused
            for what, function in (("mean", "mean"), ("standard_error", "sem"))
        }
    )
    score = score_statistics(table, task).add_prefix("score_")
    frame = score.join(wide, how="outer").dropna(axis="columns", how="all")
    frame.insert(0, "score", score_of(final).column)
    return frame.rename_axis("estimator")


def markdown(
    frame: pd.DataFrame, first: str, bold: dict[str, Collection[str]] | None = None
) -> str:
    """A frame as a Markdown table.

    Args:
        frame: of text.
        first: heads the index.
        bold: the rows that are bold in some columns.
    """
    shown = frame.astype(str).map(in_markdown).rename(index=lambda name: in_markdown(str(name)))
    for column, names in (bold or {}).items():
        if column in shown:
            chosen = shown.index.isin([*names]) & (shown[column] != "")
            shown.loc[chosen, column] = "**" + shown.loc[chosen, column] + "**"
    header = [in_markdown(str(name)) for name in (first, *shown.columns)]
    lines = [header, ["---"] * len(header)]
    lines += [[str(cell) for cell in row] for row in shown.itertuples()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex(frame: pd.DataFrame, first: str, bold: dict[str, Collection[str]] | None = None) -> str:
    """The same as a LaTeX table, which needs the package booktabs."""
    shown = frame.reset_index(names=first)
    strong = pd.DataFrame("", index=shown.index, columns=shown.columns)
    for column, names in (bold or {}).items():
        if column in strong:
            strong.loc[shown[first].isin([*names]), column] = "textbf:--rwrap;"
    style = shown.style.hide(axis="index").format(escape="latex")
    style = style.format_index(escape="latex", axis="columns").apply(lambda _: strong, axis=None)
    text = style.to_latex(hrules=True, column_format="l" + "r" * frame.shape[1])
    signed = re.sub(r"(?<!\w)-(?=\d)", "$-$", text)
    return signed.replace("±", "$\\pm$").replace("−", "$-$")


def write_table(
    stem: Path,
    text: pd.DataFrame,
    first: str,
    numbers: pd.DataFrame,
    bold: dict[str, Collection[str]] | None = None,
) -> Path:
    """Write a table as Markdown, LaTeX and CSV; the path of the CSV.

    Args:
        stem: the path without suffix.
        text: for Markdown and LaTeX.
        first, bold: see `markdown`.
        numbers: what the text says, unrounded, for the CSV.
    """
    write_whole(stem.with_suffix(".md"), markdown(text, first, bold) + "\n")
    write_whole(stem.with_suffix(".tex"), latex(text, first, bold))
    path = stem.with_suffix(".csv")
    write_whole(path, numbers.rename_axis("estimator").to_csv())
    return path


def _intervals(frame: pd.DataFrame, estimate: str, low: str, high: str, fmt: str) -> list[str]:
    """Estimates with their intervals, where there are any."""
    return [
        ""
        if np.isnan(middle)
        else format(middle, fmt)
        if np.isnan(least)
        else f"{middle:{fmt}} [{least:{fmt}}, {most:{fmt}}]"
        for middle, least, most in zip(frame[estimate], frame[low], frame[high], strict=True)
    ]


def costs(rows: pd.DataFrame) -> list[str]:
    """The columns of counted costs that a table of these rows has."""
    return ["decoder_calls", *(name for name in SELDOM if rows[name].gt(0).any())]


def _unused(final: pd.DataFrame) -> set[str]:
    """The columns that no table of these rows has: costs that none has, and times of all kinds."""
    times = {"train_seconds"} if differing(final) else set()
    return times | ({*SELDOM} - {*costs(final)})


def _is_shown(column: pd.Series, final: pd.DataFrame, name: str) -> bool:
    """Leave out what no cell has, and the loss where it is minus the ELBO."""
    if name in ("loss", "rounded_loss") and final["elbo"].notna().any():
        return False
    return bool(column.fillna("").ne("").any())


def _row(rows: pd.DataFrame) -> dict[str, str]:
    return {name: _mean(rows[name].dropna(), fmt) for name, (_, fmt) in COLUMNS.items()}


def _mean(values: pd.Series, fmt: str) -> str:
    if values.empty:
        return ""
    fmt = fmt if values.abs().max() < 1e6 else ".1e"
    mean = format(values.mean(), fmt)
    return mean if len(values) == 1 else f"{mean} ± {format(values.sem(), fmt)}"


def _count(cells: pd.DataFrame) -> str:
    """How many cells have a score, and what became of the others."""
    counts = cells["status"].value_counts()
    parts = [str(counts.get("ok", 0))] if counts.get("ok", 0) else []
    parts += [f"{n} {status}" for status, n in counts.items() if status != "ok"]
    return ", ".join(parts)
