"""The report of a results folder: summary tables and figures."""

from pathlib import Path

import pandas as pd

from analysis.examples import examples_section, save_examples
from analysis.figures import save_figures
from analysis.load import load_results
from analysis.page import write_page
from analysis.tables import markdown, summary


def write_report(folder: Path) -> list[Path]:
    """Write `report.md` and `figures/` into a results folder; the paths of what was written.

    Raises:
        ResultsError: the folder can't be read.
    """
    table = load_results(folder)
    figures = save_figures(table, folder / "figures")
    commands = [f"`{command}`" for command in table["command"].unique()]
    parts = [f"# {folder.name}", f"Made by {', '.join(commands)}.", *notes(table)]
    for task in sorted(table["task"].unique()):
        parts += [f"## {task}", markdown(summary(table, task), task)]
    parts += [f"![{path.stem}](figures/{path.name})" for path in figures]
    examples = save_examples(table, folder)
    parts += examples_section(examples, folder)
    path = folder / "report.md"
    path.write_text("\n\n".join(parts) + "\n")
    return [path, write_page(folder, table, notes(table), examples), *figures]


def notes(table: pd.DataFrame) -> list[str]:
    """What a reader has to know before comparing, in a sentence each."""
    found = []
    unsolved = table[table["unsolved"] > 0]
    if not unsolved.empty:
        cells = unsolved.drop_duplicates("key")
        names = ", ".join(sorted(cells["estimator"].unique()))
        found.append(
            f"In {len(cells)} cells ({names}) a sparse mapping stopped short of its tolerance, for "
            f"up to {unsolved['unsolved'].max():.1%} of the rows of an evaluation."
        )
    for column in ("threads", "cells_beside", "device", "machine"):
        timed = table[table["status"] == "ok"]
        values = sorted(timed[column].dropna().astype(str).unique())
        if len(values) > 1:
            found.append(f"Times can't be compared: {column} differ ({', '.join(values)}).")
    return found
