"""Tables and figures of the documentation, from stored rows: `make docs`.

A page has a table between two comments, which say what it is of:

    <!-- scores results/reference/digits ssvae -->
    <!-- end -->
"""

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from analysis.figures import save_figures
from analysis.files import write_whole
from analysis.gradient_rows import pooled
from analysis.gradients import budget_table, quality_table, save_gradient_figures
from analysis.load import load_gradients, load_results
from analysis.tables import markdown, summary

FIGURES = {
    "results/reference/digits": {
        "final_scores": "final_scores.png",
        "score_against_calls": "score_against_calls.png",
    },
    "results/reference/gradients": {
        "variance_against_calls": "gradient_variance.png",
        "variance_along_training": "gradient_training.png",
        "bias_along_settings": "gradient_bias.png",
    },
}
"""Figures of a folder, and what they are called in `docs/images`."""


def scores(folder: Path, task: str) -> str:
    """Test scores and costs of every estimator that ran."""
    table = load_results(folder)
    return markdown(summary(table[table["status"] != "skipped"], task), task)


def gradients(folder: Path, task: str) -> str:
    """Bias, and variance at equal budgets, of every estimator's gradient."""
    rows = pooled(load_gradients(folder))
    budgets = budget_table(rows, task)
    bias = quality_table(rows, task).loc[budgets.index, ["bias"]]
    return markdown(pd.concat([bias, budgets], axis="columns"), task)


TABLES: dict[str, Callable[[Path, str], str]] = {"scores": scores, "gradients": gradients}

_PLACE = re.compile(r"(<!-- (\w+) (\S+) (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str, root: Path) -> str:
    """A page with the tables that it has places for.

    Args:
        text: of the page.
        root: of the repository.
    Raises:
        ResultsError: the rows of one can't be read.
    """

    def table(place: re.Match[str]) -> str:
        start, kind, folder, task, end = place.groups()
        return f"{start}\n{TABLES[kind](root / folder, task)}\n\n{end}"

    return _PLACE.sub(table, text)


def pages(root: Path) -> list[Path]:
    """All pages of the documentation."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def main() -> None:
    root = Path(__file__).parent.parent
    for page in pages(root):
        write_whole(page, with_tables(page.read_text(), root))
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder)
        digits, quality = FIGURES
        save_figures(load_results(root / digits), drawn)
        save_gradient_figures(pooled(load_gradients(root / quality)), drawn)
        for names in FIGURES.values():
            for name, image in names.items():
                shutil.copy(drawn / f"{name}.png", root / "docs" / "images" / image)


if __name__ == "__main__":
    main()
