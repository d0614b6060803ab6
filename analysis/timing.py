"""Times of training steps, from cells that ran one at a time for these alone."""

import math
from pathlib import Path

import pandas as pd

from analysis.figures import save_row
from analysis.files import write_whole
from analysis.load import load_timing, outcomes
from analysis.points import timed_steps
from analysis.tables import COLUMNS, costs, markdown, write_table
from analysis.texts import in_markdown
from analysis.times import differing_code, under_equal_circumstances

_METHOD = (
    "Milliseconds of a training step, data and optimizer included and evaluation left out: median "
    "and quartiles over repetitions and seeds. Cells ran one at a time, seed by seed, from the "
    "weights that training starts from: sparse supports are at their largest, and later steps "
    "faster. Decoder calls are for each example."
)


def times_of_steps(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """A row for each estimator, fastest first, of the circumstances that most cells ran under.

    Args:
        table: of `load_timing`.
        task: which.
    """
    ok = table[(table["task"] == task) & (table["status"] == "ok")]
    rows, _ = under_equal_circumstances(ok)
    grouped = rows.groupby("estimator")
    found = pd.DataFrame(
        {
            "median": grouped["milliseconds"].median(),
            "lower_quartile": grouped["milliseconds"].quantile(0.25),
            "upper_quartile": grouped["milliseconds"].quantile(0.75),
            **{name: grouped[name].mean() for name in costs(rows)},
            "repetitions": grouped.size(),
        }
    )
    return found.sort_values("median")


def times_table(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """What `times_of_steps` found, in text."""
    found = times_of_steps(table, task)
    return pd.DataFrame(
        {
            "ms a step": found["median"].map(_three_digits),
            "quartiles": [
                f"{_three_digits(low)} to {_three_digits(high)}"
                for low, high in zip(found["lower_quartile"], found["upper_quartile"], strict=True)
            ],
            "× the fastest": (found["median"] / found["median"].min()).map("{:.1f}".format),
            **{
                COLUMNS[name][0]: ["" if math.isnan(n) else f"{n:.1f}" for n in found[name]]
                for name in COLUMNS
                if name in found
            },
            "repetitions": found["repetitions"].astype(str),
        },
        index=found.index,
    )


def write_timing_report(folder: Path) -> list[Path]:
    """Write `report.md`, `tables/` and a figure into a folder of timed steps; their paths.

    Raises:
        ResultsError: the folder can't be read.
    """
    table = load_timing(folder)
    ok = table[table["status"] == "ok"]
    parts, tables = [f"# {in_markdown(folder.name)}", _METHOD], []
    for task in sorted(ok["task"].unique()):
        text, numbers = times_table(table, task), times_of_steps(table, task)
        rows, left_out = under_equal_circumstances(ok[ok["task"] == task])
        parts += [f"## {task}", _where(rows, left_out), markdown(text, task)]
        tables.append(write_table(folder / "tables" / f"{task}_steps", text, task, numbers))
    cells = outcomes(table)
    bad = cells[~cells["status"].isin(["ok", "skipped"])]
    parts += [
        f"- {in_markdown(f'{c.task} {c.estimator} {c.seed}: {c.status}: {c.reason}')}"
        for c in bad.itertuples()
    ]
    tasks = sorted(ok["task"].unique())
    figures = [save_row(ok, tasks, timed_steps, folder / "figures")] if tasks else []
    parts += [f"![{path.stem}](figures/{path.name})" for path in figures]
    path = folder / "report.md"
    write_whole(path, "\n\n".join(parts) + "\n")
    return [path, *tables, *figures]


def _where(rows: pd.DataFrame, left_out: str) -> str:
    """What the times of a table were taken on, and what it leaves out."""
    first = rows.iloc[0]  # circumstances are equal
    commits = rows["commit"].dropna().astype(str).str[:10]
    said = f"{first['machine']}, {first['device']}, torch {_all(rows['torch'])}, threads: "
    said += f"{first['threads']}, commit {_all(commits)}."
    if differ := differing_code(rows):
        said += (
            f" Cells differ in {', '.join(differ)}: these are not times of one code. `--force` "
            "takes them all anew."
        )
    return f"{said} Of {left_out}." if left_out else said


def _all(values: pd.Series) -> str:
    """Every value that there is."""
    return ", ".join(sorted(values.dropna().astype(str).unique())) or "unknown"


def _three_digits(milliseconds: float) -> str:
    return f"{milliseconds:.3g}" if milliseconds < 1000 else f"{milliseconds:.0f}"
