"""Summary tables: means over seeds with their standard errors."""

import pandas as pd

from analysis.load import FLOOR, final_rows, outcomes, untrained_rows

COLUMNS = {
    "accuracy": ("accuracy", ".3f"),
    "loss": ("loss (nats)", ".3f"),
    "elbo": ("ELBO (nats)", ".2f"),
    "nll": ("NLL (bits/dim)", ".3f"),
    "rate": ("rate (nats)", ".2f"),
    "distortion": ("distortion (nats)", ".2f"),
    "support_mean": ("support", ".1f"),
    "decoder_calls": ("decoder calls", ".1f"),
    "train_seconds": ("seconds", ".1f"),
}
"""Columns of a summary: header and format of each."""


def summary(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Test metrics of a task: a row for each estimator, "mean ± standard error" over seeds.

    Cells that failed or were skipped show their status. The floors follow at the end: the
    estimator `none`, the untrained model (on validation) and chance.
    """
    here = table[table["task"] == task]
    final = final_rows(here)
    names = [name for name in sorted(here["estimator"].unique()) if name != FLOOR]
    rows = {name: _row(final[final["estimator"] == name]) for name in names}
    for name in names:
        rows[name]["seeds"] = _count(outcomes(here[here["estimator"] == name]))
    floor = here[here["estimator"] == FLOOR]
    if not floor.empty:
        rows[FLOOR] = _row(final_rows(floor)) | {"seeds": _count(outcomes(floor))}
        rows["untrained"] = _row(untrained_rows(floor))
    chance = here["chance"].dropna()
    if not chance.empty:
        rows["chance"] = {"accuracy": format(chance.iloc[0], ".3f")}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    present = [name for name in COLUMNS if name in frame and _is_shown(frame[name], final, name)]
    frame = frame[["seeds", *present]].fillna("")
    return frame.rename(columns={name: COLUMNS[name][0] for name in present})


def _is_shown(column: pd.Series, final: pd.DataFrame, name: str) -> bool:
    """Leave out what no cell has, and the loss where it is minus the ELBO."""
    if name == "loss" and final["elbo"].notna().any():
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
    """How many cells are ok, and what became of the others."""
    counts = cells["status"].value_counts()
    parts = [str(counts.get("ok", 0))] if counts.get("ok", 0) else []
    parts += [f"{n} {status}" for status, n in counts.items() if status != "ok"]
    return ", ".join(parts)


def markdown(frame: pd.DataFrame, first: str) -> str:
    """A frame as a Markdown table; `first` heads the index."""
    header = [first, *frame.columns]
    lines = [header, ["---"] * len(header)]
    lines += [[str(cell) for cell in row] for row in frame.itertuples()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
