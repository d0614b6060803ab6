"""The tables of the documentation are those of the stored rows."""

from pathlib import Path

import pytest

from analysis.docs import FIGURES, pages, with_tables

ROOT = Path(__file__).parents[2]


WITH_TABLES = [page for page in pages(ROOT) if "<!-- end -->" in page.read_text()]


@pytest.mark.parametrize("page", WITH_TABLES, ids=lambda page: page.stem)
def test_tables_are_of_the_stored_rows(page: Path) -> None:
    """If not: make docs."""
    text = page.read_text()
    assert with_tables(text, ROOT) == text


def test_a_number_that_is_not_in_the_rows_is_found() -> None:
    text = (ROOT / "docs" / "RESULTS.md").read_text()
    changed = text.replace("| dense | 3 | 0.", "| dense | 3 | 1.")
    assert changed != text
    assert with_tables(changed, ROOT) == text


def test_figures_are_shown_somewhere() -> None:
    shown = "".join(page.read_text() for page in pages(ROOT))
    for names in FIGURES.values():
        for image in names.values():
            assert f"images/{image}" in shown
            assert (ROOT / "docs" / "images" / image).exists()
