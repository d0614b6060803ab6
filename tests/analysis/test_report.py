"""Reports and tables, of good folders and of bad ones."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis import figures, report
from analysis.load import final_rows, load_results
from analysis.report import write_report
from analysis.schema import TRAINING
from analysis.stored import JOURNAL, ResultsError
from analysis.tables import latex, markdown, metrics, seconds, summary
from tests.analysis.synthetic import ask, cell, grid, table_of, write, write_cells

NAMES = ["sfe", "rloo", "dense"]


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw quickly."""
    monkeypatch.setattr(figures, "SUFFIXES", (".png",))
    monkeypatch.setitem(figures.STYLE, "savefig.dpi", 20)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing."""
    monkeypatch.setattr(report, "save_figures", lambda *_: [])


def text_of(table: pd.DataFrame, folder: Path, **options: Any) -> str:
    return write_report(write(table, folder), **options)[0].read_text()


@pytest.mark.usefixtures("undrawn")
def test_the_report_says_how_many_seeds_each_statement_rests_on(tmp_path: Path) -> None:
    table = grid(["game", "bitvector"], [*NAMES, "none"], 3)
    text = text_of(table, tmp_path)
    assert "**24 cells**: 24 ok." in text
    assert "mean ± standard error over 3 seeds" in text
    assert "of 3 comparisons none can be significant with fewer than 7 seeds" in text
    assert "| statement |" not in text
    assert "over the 3 seeds at which all of them ended" in text
    assert "Intervals of interquartile means need 5 seeds" in text
    partial = table[~((table["estimator"] == "sfe") & (table["seed"] == 2))]
    assert "over 2 to 3 seeds" in text_of(partial, tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_slopes_and_oracle_calls_have_columns_where_a_row_has_any(tmp_path: Path) -> None:
    """In the tables of a task, as text and as numbers; a run that diverged has no row there."""
    counted = grid(["game", "ssvae"], NAMES, 2).assign(slopes=0.0, oracle_calls=0.0)
    mine = (counted["task"] == "game") & (counted["estimator"] == "rloo")
    counted.loc[mine, "slopes"] = 2.0
    lost = table_of([cell("game", "sfe", 2, 0.5, status="diverged", oracle_calls=9.0)])
    table = pd.concat([counted, lost], ignore_index=True)
    text = text_of(table, tmp_path)
    shown = summary(table, "game")
    assert shown.loc[NAMES, "slopes"].tolist() == ["0.0 ± 0.0", "2.0 ± 0.0", "0.0 ± 0.0"]
    assert text.count("| decoder calls | slopes | seconds |") == 1
    assert text.count("| decoder calls | seconds |") == 1
    game, ssvae = (metrics(table, task) for task in ("game", "ssvae"))
    assert game.loc[NAMES, "slopes_mean"].tolist() == [0, 2, 0]
    assert not [name for frame in (game, ssvae) for name in frame if "oracle" in name]
    assert not [name for name in ssvae if "slopes" in name]


@pytest.mark.usefixtures("undrawn")
def test_an_earlier_version_is_reported_without_what_it_did_not_count(tmp_path: Path) -> None:
    write(grid(["game"], NAMES, 2).assign(schema_version=TRAINING.version - 1), tmp_path)
    path = tmp_path / "table.parquet"
    added = [*TRAINING.added[TRAINING.version]]
    pq.write_table(pq.read_table(path).drop_columns(added), path)
    text, page = (file.read_text() for file in write_report(tmp_path)[:2])
    assert "| decoder calls | seconds |" in text
    assert "slopes" not in text
    assert ">decoder calls</th>" in page
    assert ">slopes</th>" not in page


@pytest.mark.usefixtures("undrawn")
def test_with_seeds_enough_the_report_makes_statements(tmp_path: Path) -> None:
    text = text_of(grid(["game"], NAMES, 9), tmp_path)
    assert "| game − dense | seeds | accuracy | P(better) | p | statement |" in text
    assert "| worse |" in text
    assert "| dense | 9 | **0." in text
    assert "| sfe | 9 | 0." in text


@pytest.mark.usefixtures("undrawn")
def test_the_baseline_can_be_chosen(tmp_path: Path) -> None:
    text = text_of(grid(["game"], NAMES, 3), tmp_path, baseline="rloo")
    assert "Minus `rloo` at the same seeds" in text
    assert "| game − rloo |" in text


@pytest.mark.usefixtures("undrawn")
def test_what_shares_no_seed_with_the_baseline_is_named(tmp_path: Path) -> None:
    table = grid(["game"], NAMES, 3)
    later = [cell("game", "nvil", seed, 0.5) for seed in (3, 4, 5)]
    lost = [cell("game", "gumbel", seed, 0.5, status="failed") for seed in range(3)]
    skipped = [cell("game", "sparsemap", 0, 0.5, status="skipped")]
    text = text_of(pd.concat([table, table_of([*later, *lost, *skipped])]), tmp_path)
    assert "Without a score at any of its seeds: gumbel, nvil." in text


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_said_of_differences_where_the_baseline_is_alone(tmp_path: Path) -> None:
    assert "same seeds" not in text_of(grid(["game"], ["sfe"], 3), tmp_path)


def test_tables_are_written_three_times_over(tmp_path: Path, undrawn: None) -> None:
    written = write_report(write(grid(["my_game", "bitvector"], NAMES, 5), tmp_path))
    stems = ["bitvector", "bitvector_differences", "my_game", "my_game_differences", "over_tasks"]
    assert written[1].name == "report.html"
    assert [path.stem for path in written[2:]] == stems
    for path in written[2:]:
        assert path.with_suffix(".md").read_text() in (tmp_path / "report.md").read_text() + "\n"
        assert path.with_suffix(".tex").read_text().startswith("\\begin{tabular}")
        assert "\\toprule" in path.with_suffix(".tex").read_text()
    with (tmp_path / "tables" / "my_game.csv").open() as file:
        rows = {row["estimator"]: row for row in csv.DictReader(file)}
    final = final_rows(load_results(tmp_path))
    own = final[(final["task"] == "my_game") & (final["estimator"] == "sfe")]["accuracy"]
    assert float(rows["sfe"]["accuracy_mean"]) == pytest.approx(own.mean())
    assert float(rows["sfe"]["score_standard_error"]) == pytest.approx(own.sem())
    assert rows["dense"]["score_could_be_best"] == "True"
    differences = (tmp_path / "tables" / "my_game_differences.tex").read_text()
    assert "my\\_game $-$ dense" in differences
    assert "& $-$0.0" in differences


def test_best_and_tied_are_bold_in_markdown_and_latex() -> None:
    frame = pd.DataFrame({"score": ["1 ± 0", "2 ± 0"], "calls": ["3", "3"]}, index=["a", "b_c"])
    bold = {"score": ["b_c"]}
    assert "| b_c | **2 ± 0** | 3 |" in markdown(frame, "t", bold)
    assert "b\\_c & \\textbf{2 $\\pm$ 0} & 3 \\\\" in latex(frame, "t", bold)
    assert "a & 1 $\\pm$ 0 & 3 \\\\" in latex(frame, "t", bold)
    assert "| a\\|b | x y |" in markdown(pd.DataFrame({"m": ["x\ny"]}, index=["a|b"]), "t")


def test_seconds_of_different_company_stand_apart() -> None:
    table = grid(["game"], ["sfe", "dense"], 4)
    assert seconds(table, "game").empty
    assert "seconds" in summary(table, "game")
    mixed = table.assign(cells_beside=table["seed"] % 2 * 3, train_seconds=table["seed"] + 1.0)
    assert "seconds" not in summary(mixed, "game")
    assert "train_seconds_mean" in metrics(table, "game")
    assert "train_seconds_mean" not in metrics(mixed, "game")
    found = seconds(mixed, "game")
    assert list(found.columns) == ["0 cells beside", "3 cells beside"]
    assert found.loc["sfe"].tolist() == ["2.0 ± 1.0 (2)", "3.0 ± 1.0 (2)"]


@pytest.mark.usefixtures("undrawn")
def test_differences_to_another_folder_say_what_else_differs(tmp_path: Path) -> None:
    before = grid(["game"], NAMES, 3)
    write(before, tmp_path / "before")
    after = tmp_path / "after"
    text = text_of(before, after, against=tmp_path / "before").split("## Against ")[1]
    assert "| game − " in text
    assert "numerics" not in text
    write(before, after)
    path = tmp_path / "before" / "table.parquet"
    rows = pq.read_table(path)
    place = rows.schema.get_field_index("numerics")
    earlier = pa.array([1] * len(rows), rows.schema.field("numerics").type)
    pq.write_table(rows.set_column(place, "numerics", earlier), path)
    text = write_report(after, against=tmp_path / "before")[0].read_text()
    assert "The numerics are of version 2 here and 1 there: differences may be theirs" in text
    other = text_of(grid(["other"], NAMES, 3), after, against=tmp_path / "before")
    assert "The two folders have no task in common." in other
    (tmp_path / "before" / JOURNAL).touch()
    with pytest.raises(ResultsError, match="before holds a search, not training"):
        write_report(after, against=tmp_path / "before")


@pytest.mark.usefixtures("undrawn")
def test_failed_cells_are_listed_with_their_reasons(tmp_path: Path) -> None:
    lost = [cell("game", "sfe", seed, 0.5, status="failed") for seed in range(60)]
    lost += [cell("game", "dense", 0, 0.5), cell("game", "rloo", 0, 0.5, status="skipped")]
    text = text_of(table_of(lost), tmp_path)
    assert "| game | sfe | 7 | failed | because |" in text
    assert "And 10 more." in text
    assert "| game | rloo | 0 |" not in text
    assert "Nothing has scores on game at the same seeds as `dense`" in text


@pytest.mark.usefixtures("undrawn")
def test_names_of_folders_and_reasons_do_not_break_the_page_s_tables(tmp_path: Path) -> None:
    table = grid(["game"], NAMES, 3)
    before, after = tmp_path / "be|<b>fore", tmp_path / "<i>after"
    write(table, before)
    lost = cell("game", "nvil", 0, 0.5, status="diverged")
    lost = [row | {"reason": "got <class 'x'>\x1b[2J"} for row in lost]
    text = text_of(pd.concat([table, table_of([lost])]), after, against=before)
    assert "# &lt;i>after" in text
    assert "| game − be\\|&lt;b>fore |" in text
    assert "| got &lt;class 'x'>\\x1b[2J |" in text
    assert not re.search("<[a-z]|\x1b", text)


def test_one_seed_of_an_unknown_estimator_makes_a_report(tmp_path: Path) -> None:
    table = grid(["game", "bitvector"], ["theirs", "dense"], 1)
    text = text_of(table, tmp_path)
    assert "over 1 seed." in text
    assert "over the 1 seed at which all of them ended" in text
    assert "of 1 comparison none can be significant" in text
    assert "Nothing is bold: that takes two estimators with 3 seeds" in text
    assert "no interval below 3 seeds" in text
    assert "±" not in text.replace("mean ± standard error", "")
    assert "[" not in "".join(line for line in text.splitlines() if line.startswith("| "))
    assert len(list((tmp_path / "figures").glob("*.png"))) == 10


@pytest.mark.usefixtures("undrawn")
def test_a_cell_without_a_command_makes_a_report(tmp_path: Path) -> None:
    text = text_of(table_of([cell("game", "sfe", 0, 0.5, command=None)]), tmp_path)
    assert "**1 cell**: 1 ok." in text
    assert "Made by" not in text


@pytest.mark.usefixtures("undrawn")
def test_the_report_says_why_nothing_is_bold(tmp_path: Path) -> None:
    cells = [cell("game", name, seed, 0.5) for name in ("sfe", "rloo") for seed in range(3)]
    lost = [cell("game", name, 3, 0.5, status="diverged") for name in ("sfe", "rloo")]
    text = text_of(table_of([*cells, *lost]), tmp_path)
    assert "3 seeds at least and no run that failed, diverged or gave no score." in text
    later = [cell("game", "rloo", seed, 0.5) for seed in (3, 4, 5)]
    text = text_of(table_of([*cells[:3], *later]), tmp_path)
    assert "Nothing is bold: no two of those that could be have 3 seeds in common." in text


@pytest.mark.usefixtures("undrawn")
def test_the_report_says_what_bold_rests_on(tmp_path: Path) -> None:
    table = grid(["game"], [*NAMES, "nvil"], 9)
    table = table[(table["estimator"] != "rloo") | (table["seed"] < 3)]
    lost = table_of([cell("game", "nvil", 9, 0.5, status="diverged")])
    text = text_of(pd.concat([table, lost]), tmp_path)
    assert "| rloo | 3 | 0." in text
    assert "at 95% for all together, of 2 estimators compared on 9 seeds." in text
    assert "Left out: nvil (runs lost), rloo (seeds missing)." in text


def test_nothing_but_failures_makes_a_report(tmp_path: Path) -> None:
    cells = [cell("game", name, 0, 0.5, status="failed") for name in NAMES]
    text = text_of(table_of(cells), tmp_path)
    assert "**3 cells**: 3 failed." in text
    assert "| sfe | 1 failed |" in text
    assert "## Figures" not in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_that_are_no_numbers_count_as_missing(tmp_path: Path, score: float) -> None:
    cells = [cell("game", name, seed, 0.5 + seed / 10) for name in NAMES for seed in range(3)]
    cells += [cell("game", "nvil", seed, score if seed == 1 else 0.6) for seed in range(3)]
    cells += [cell("game", "gumbel", seed, score) for seed in range(3)]
    text = text_of(table_of(cells), tmp_path)
    assert "**15 cells**: 11 ok, 4 without score." in text
    assert "| gumbel | 3 without score |  |  |" in text
    assert "| nvil | 2, 1 without score | 0.600 ± 0.000 | 0.600 ± 0.000 |" in text
    assert "| game | nvil | 1 | without score | no finite accuracy on test |" in text
    page = (tmp_path / "report.html").read_text()
    assert '<span class="status without score">4 without score</span>' in page
    assert "<td>no finite accuracy on test</td>" in page
    with (tmp_path / "tables" / "game.csv").open() as file:
        rows = {row["estimator"]: row for row in csv.DictReader(file)}
    assert float(rows["nvil"]["score_seeds"]) == 2
    assert float(rows["nvil"]["score_ended_badly"]) == 1
    assert float(rows["nvil"]["score_mean"]) == pytest.approx(0.6)


@pytest.mark.usefixtures("undrawn")
def test_a_folder_without_any_scores_makes_a_report(tmp_path: Path) -> None:
    cells = [cell("game", name, seed, np.nan) for name in NAMES for seed in range(3)]
    text = text_of(table_of(cells).assign(elbo=np.nan, loss=np.nan), tmp_path)
    assert "| sfe | 3 without score |" in text


@pytest.mark.usefixtures("undrawn")
def test_cells_that_are_there_twice_count_once(tmp_path: Path) -> None:
    table = grid(["game"], NAMES, 3)
    again = table[table["estimator"] == "sfe"].assign(key=lambda rows: rows["key"] + "again")
    text = text_of(pd.concat([table, again]), tmp_path)
    assert "3 cells of game are there again with other settings" in text
    assert "| sfe | 3 |" in text.split("game − dense")[1]


@pytest.mark.usefixtures("undrawn")
def test_a_folder_that_is_still_written_tells_what_is_missing(tmp_path: Path) -> None:
    table = grid(["game"], NAMES, 2)
    write_cells(table, tmp_path)
    ask(tmp_path, *table["key"].unique(), "later")
    text = write_report(tmp_path)[0].read_text()
    assert "**6 cells**: 6 ok. 1 more was asked for and is not there yet." in text
    ask(tmp_path, "later")
    with pytest.raises(ResultsError, match="holds none of the cells that it was asked for yet"):
        write_report(tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_ten_thousand_cells_take_seconds(tmp_path: Path) -> None:
    """In processor time, so that company does not matter much; drawing takes as long as ever."""
    import time

    small = grid(["game", "bitvector"], NAMES, 2)
    parts = []
    for block in range(834):
        seed = small["seed"] + 2 * block
        parts.append(small.assign(seed=seed, key=small["key"] + f"-{block}"))
    table = pd.concat(parts)
    random = np.random.default_rng(0)
    for column in ("accuracy", "nll"):
        table[column] *= 1 + 0.1 * random.normal(size=len(table))
    assert table["key"].nunique() > 10_000
    write(table, tmp_path)
    start = time.process_time()
    write_report(tmp_path)
    assert time.process_time() - start < 30


def test_what_is_of_another_model_is_said_to_be(tmp_path: Path) -> None:
    """The columns of rounded scores are there if, and only if, an estimator has them."""
    table = grid(["bitvector"], ["rloo", "hard-kuma"], 2)
    write(table, tmp_path / "plain")
    write_report(tmp_path / "plain")
    assert "P(vertex)" not in (tmp_path / "plain" / "report.md").read_text()
    own = (table["estimator"] == "hard-kuma") & table["split"].notna()
    columns = {"on_vertex": 0.25, "on_edge": 0.5, "face_vertices": 2.25}
    columns |= {"rounded_elbo": -31.5, "rounded_nll": 2.125, "rounded_loss": 31.5}
    write(table.assign(**columns).where(own, table), tmp_path / "mixed")
    write_report(tmp_path / "mixed")
    text = (tmp_path / "mixed" / "report.md").read_text()
    assert "z of hard-kuma may lie between assignments" in text
    header, _, *rows = (line for line in text.splitlines() if line.startswith("| "))
    for name in (
        "P(vertex)",
        "P(edge)",
        "vertices",
        "rounded: ELBO (nats)",
        "rounded: NLL (bits/dim)",
    ):
        assert f"| {name} |" in header
    assert "rounded: loss" not in header
    (row,) = (row for row in rows if row.startswith("| hard-kuma | 2 |"))
    assert "| 0.25 ± 0.00 | 0.50 ± 0.00 | 2.25 ± 0.00 | -31.50 ± 0.00 | 2.125 ± 0.000 |" in row
