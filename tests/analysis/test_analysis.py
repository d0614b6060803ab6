"""Tables and figures from small tables made by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.figures import save_figures
from analysis.load import (
    final_rows,
    flatten_hyperparameters,
    load_results,
    outcomes,
)
from analysis.report import notes
from analysis.schema import TRAINING
from analysis.scores import score_of
from analysis.tables import markdown, summary
from tests.analysis.synthetic import write

SETTINGS = {"training": {"lr": 1}, "task": {}, "evaluation": {}, "dataset_digest": "abc"}
ROOT = Path(__file__).parents[2]


def rows_of(
    estimator: str, seed: int, accuracy: float, status: str = "ok"
) -> list[dict[str, object]]:
    common: dict[str, object] = {
        "task": "ssvae", "estimator": estimator, "seed": seed, "key": f"{estimator}{seed}",
        "status": status, "reason": None if status == "ok" else "because", "chance": 0.1,
        "started": "2026-01-01T00:00:00+00:00", "schema_version": TRAINING.version,
        "command": "run_bench.py",
        "hyperparameters": json.dumps(SETTINGS), "threads": 1, "device": "cpu",
        "cells_beside": 1, "machine": "one", "kernels": "AVX2", "profile": "quick",
        "dataset": "digits", "latent_size": 10, "commit": "abc", "dirty": False, "numerics": 4,
        "torch": "2.13", "numba": None, "python": "3.12", "packages": "{}",
    }  # fmt: skip
    if status != "ok":
        return [common | {"chance": None}]
    numbers = {"elbo": -20.0, "decoder_calls": 2.0, "train_seconds": 3.0, "loss": 20.0}
    curve = [
        common | numbers | {"split": "validation", "step": step, "epoch": step / 10, "accuracy": a}
        for step, a in ((0, 0.1), (10, accuracy / 2), (20, accuracy))
    ]
    tested = common | numbers | {"split": "test", "step": 20}
    last = tested | {"selection": "last", "accuracy": accuracy - 0.1}
    return [*curve, last, tested | {"selection": "best", "accuracy": accuracy}]


NULL = (
    "agreement", "nll", "nll_effective_samples", "unsolved", "rate", "distortion", "support_mean",
    "decoder_calls_total", "slopes", "oracle_calls", "on_vertex", "on_edge", "face_vertices",
    "rounded_elbo", "rounded_nll", "rounded_loss",
)  # fmt: skip


@pytest.fixture
def table() -> pd.DataFrame:
    rows = [
        *rows_of("sfe", 0, 0.5), *rows_of("sfe", 1, 0.7), *rows_of("dense", 0, 0.9),
        *rows_of("dense", 1, 0.0, "failed"), *rows_of("sparsemap", 0, 0, "skipped"),
        *rows_of("none", 0, 0.3), *rows_of("none", 1, 0.3),
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**{name: float("nan") for name in NULL})


def test_summary_gives_mean_and_standard_error(table: pd.DataFrame) -> None:
    frame = summary(table, "ssvae")
    assert frame.loc["sfe", "accuracy"] == "0.600 ± 0.100"
    assert frame.loc["sfe", "last accuracy"] == "0.500 ± 0.100"
    assert frame.loc["dense", "accuracy"] == "0.900"
    assert frame.loc["dense", "seeds"] == "1, 1 failed"
    assert frame.loc["sparsemap", "seeds"] == "1 skipped"
    assert frame.loc["sparsemap", "accuracy"] == ""
    assert frame.loc["none", "accuracy"] == "0.300 ± 0.000"
    assert frame.loc["start", "accuracy"] == "0.100 ± 0.000"
    assert frame.loc["chance", "accuracy"] == "0.100"
    assert list(frame.index[-3:]) == ["none", "start", "chance"]
    assert "NLL (bits/dim)" not in frame
    assert "loss (nats)" not in frame


def test_markdown_has_a_line_for_each_row(table: pd.DataFrame) -> None:
    lines = markdown(summary(table, "ssvae"), "estimator").splitlines()
    assert lines[0].startswith("| estimator | seeds | accuracy |")
    assert any(line.startswith("| sfe | 2 | 0.600 ± 0.100 |") for line in lines)


def test_outcomes_has_a_row_for_each_cell(table: pd.DataFrame) -> None:
    assert outcomes(table)["status"].value_counts().to_dict() == {
        "ok": 5,
        "failed": 1,
        "skipped": 1,
    }


def test_figures_are_saved_twice_over(table: pd.DataFrame, tmp_path: Path) -> None:
    paths = save_figures(table, tmp_path)
    assert len(paths) == 9
    assert all(path.is_file() and path.with_suffix(".pdf").is_file() for path in paths)


def test_nothing_that_is_ok_gives_no_figure(table: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("my_own.png", "final_scores.png", "learning_curves.pdf", "heat_map.png"):
        (tmp_path / name).touch()
    assert save_figures(table[table["status"] != "ok"], tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["my_own.png"]


def test_hyperparameters_become_columns(table: pd.DataFrame) -> None:
    assert (flatten_hyperparameters(table)["training.lr"] == 1).all()


def test_the_compacted_table_is_enough(table: pd.DataFrame, tmp_path: Path) -> None:
    write(table, tmp_path)
    assert len(load_results(tmp_path)) == len(table)
    code = (
        "import sys; from pathlib import Path; from analysis.report import write_report;"
        f"write_report(Path({str(tmp_path)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    assert "| sfe | 2 |" in (tmp_path / "report.md").read_text()


def test_the_report_says_what_forbids_a_comparison(table: pd.DataFrame) -> None:
    assert notes(table) == []
    for column in ("threads", "cells_beside"):
        mixed = table.assign(**{column: [1] + [2] * (len(table) - 1)})
        (note,) = notes(mixed)
        assert f"({column}: 1, 2): times are compared between equals only" in note
    (note,) = notes(table.assign(unsolved=[0.25] + [0.0] * (len(table) - 1)))
    assert note.startswith("In 1 cell (sfe) a sparse mapping stopped short of its tolerance")
    assert "25.0%" in note


def test_the_report_says_which_cells_are_of_another_version(table: pd.DataFrame) -> None:
    (note,) = notes(table.assign(numerics=4 + 2 * (table["estimator"] == "sfe")))
    assert note.startswith(
        "Cells of ssvae are of several versions of the numerics, 6 of sfe; 4 of all others:"
    )
    assert notes(table.assign(numerics=4 + 2 * (table["status"] != "ok"))) == []
    (note,) = notes(table.assign(commit=table["key"], torch=table["key"]))
    assert note == (
        "Cells of ssvae differ in commit, torch: they are of several runs of the program, whose "
        "seconds may not be comparable."
    )
    other_task = table.assign(task="game", key="game" + table["key"], numerics=6, commit="def")
    assert notes(pd.concat([table, other_task])) == []


def test_unlike_kernels_are_noted_and_unknown_ones_are_not(table: pd.DataFrame) -> None:
    sfe = table["estimator"] == "sfe"
    found = notes(table.assign(kernels=sfe.map({True: "AVX512", False: "AVX2"})))
    assert (
        "Cells of ssvae are of unlike kernels (AVX2; AVX512): they can be compared, but differ in "
        "last bits."
    ) in found
    assert not any("last bits" in note for note in notes(table.assign(kernels=None)))


def test_a_task_of_another_package_is_judged_by_what_it_has(table: pd.DataFrame) -> None:
    other = table.assign(task="theirs", accuracy=float("nan"))
    assert score_of(final_rows(other)) == ("elbo", "ELBO (nats)", True)
    assert score_of(final_rows(other.assign(nll=2.0)))[0] == "nll"
    assert score_of(final_rows(other.assign(elbo=float("nan"))))[0] == "loss"
