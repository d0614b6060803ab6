"""The report of a results folder: summary tables and figures."""

from pathlib import Path

import pandas as pd

from analysis.figures import save_figures
from analysis.load import load_results
from analysis.tables import markdown, summary


def write_report(folder: Path) -> list[Path]:
    """Write `report.md` and `figures/` into a results folder; the paths of what was written.

    Raises:
        ResultsError: the folder can't be read.
    """
    table = load_results(folder)
    figures = save_figures(table, folder / "figures")
    parts = [f"# {folder.name}", f"Made by `{table['command'].iloc[0]}`.", _summaries(table)]
    parts += [f"![{path.stem}](figures/{path.name})" for path in figures]
    path = folder / "report.md"
    path.write_text("\n\n".join(parts) + "\n")
    return [path, *figures]


def _summaries(table: pd.DataFrame) -> str:
    tasks = sorted(table["task"].unique())
    return "\n\n".join(f"## {task}\n\n{markdown(summary(table, task), task)}" for task in tasks)
