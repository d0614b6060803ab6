"""Tables and figures of searches, from made-up trials."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json

from analysis import search
from analysis.schema import SEARCH
from analysis.search import (
    best_so_far,
    expected_best,
    front,
    importances,
    parallel_plot,
    sensitivity,
    slice_plot,
    write_search_report,
)
from analysis.stored import ResultsError
from analysis.trials import load_trials

SPACE = {
    "settings.decay": distribution_to_json(FloatDistribution(0.5, 0.99)),
    "settings.form": distribution_to_json(CategoricalDistribution(["constant", "network"])),
    "training.learning_rate": distribution_to_json(FloatDistribution(1e-4, 1e-1, log=True)),
}


def made_up(
    values: list[float | None], estimator: str = "sfe-ma", less: bool = False, calls: float = 1.0
) -> pd.DataFrame:
    """A study's trials; those without a value were pruned. Values rise with the learning rate."""
    generator = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for place, value in enumerate(values):
        parameters = {
            "settings.decay": generator.uniform(0.5, 0.99),
            "settings.form": str(generator.choice(["constant", "network"])),
            "training.learning_rate": 1e-4 * 10 ** (3 * (value or 0.0)),
        }
        rows.append(
            {
                "schema_version": 1, "study": f"tune:ssvae/{estimator}", "task": "ssvae",
                "estimator": estimator, "place": place, "value": value, "less_is_better": less,
                "state": "pruned" if value is None else "complete",
                "reason": "accuracy 0.1 at epoch 2" if value is None else None,
                "objectives": ["accuracy", "decoder_calls"], "parameters": parameters,
                "values": [] if value is None else [value, calls], "space": SPACE, "metrics": {},
                "keys": [], "train_seconds": 1.5, "sampler": "tpe", "pruner": "median", "seeds": 1,
                "command": "run_bench.py tune",
            }
        )  # fmt: skip
    return pd.DataFrame(rows).astype({"value": float})


VALUES = [0.3, 0.1, None, 0.4, 0.15, 0.9]


@pytest.mark.parametrize("less", [False, True])
def test_expected_best_is_the_mean_over_all_subsets(less: bool) -> None:
    worst, choose = (0.9, min) if less else (0.1, max)
    filled = [worst if value is None else value for value in VALUES]
    wanted = [
        np.mean([choose(some) for some in itertools.combinations(filled, k)])
        for k in range(1, len(filled) + 1)
    ]
    np.testing.assert_allclose(expected_best(made_up(VALUES, less=less)), wanted, atol=1e-12)


def test_best_so_far() -> None:
    assert best_so_far(made_up(VALUES)).tolist() == [0.3, 0.3, 0.3, 0.4, 0.4, 0.9]
    assert best_so_far(made_up(VALUES, less=True)).tolist() == [0.3, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert np.isnan(best_so_far(made_up([None, 0.2]))[0])


def test_what_matters_has_the_importance() -> None:
    shares = importances(made_up(np.linspace(0.05, 0.95, 30).tolist()))
    assert set(shares) == set(SPACE)
    assert shares["training.learning_rate"] > 0.8
    assert importances(made_up([0.1, 0.2, None])) == {}


def test_the_front_holds_what_nothing_beats() -> None:
    table = pd.concat(
        [made_up([0.5, 0.6], "sfe"), made_up([0.6, 0.9], "rloo", calls=4.0)], ignore_index=True
    )
    found = front(table)
    assert list(zip(found.index, found["accuracy"], found["decoder_calls"], strict=True)) == [
        ("sfe", "0.6", "1"),
        ("rloo", "0.9", "4"),
    ]


def test_sensitivity_is_what_the_search_came_to() -> None:
    table = pd.concat([made_up([0.2, 0.3]), made_up(VALUES, "nvil")], ignore_index=True)
    found = sensitivity(table, "ssvae")
    assert list(found.index) == ["nvil", "sfe-ma"]
    row = found.loc["nvil"]
    assert row["trials"] == "6 (1 pruned)"
    assert [row[name] for name in ("start", "best", "median", "worst")] == [
        "0.3", "0.9", "0.3", "0.1",
    ]  # fmt: skip
    assert "learning_rate=0.0501" in row["best settings"]


def test_figures_show_the_trials() -> None:
    trials = made_up(VALUES)
    left, right = Figure().subplots(1, 2)
    slice_plot(trials, "training.learning_rate", left)
    assert left.get_xscale() == "log"
    offsets = np.asarray(left.collections[0].get_offsets())
    assert offsets[:, 1].tolist() == [0.3, 0.1, 0.4, 0.15, 0.9]
    parallel_plot(trials, right)
    assert len(right.lines) == len(VALUES)
    heights = np.asarray(right.lines[-1].get_ydata())
    assert heights[2] == pytest.approx(0.9)
    darkest = min(right.lines, key=lambda line: float(str(line.get_color())))
    assert darkest is right.lines[-1]


def stored(folder: Path, table: pd.DataFrame) -> None:
    coded = table.copy()
    for name in ("objectives", "values", "parameters", "metrics", "space", "keys"):
        coded[name] = coded[name].map(json.dumps)
    rows = pa.Table.from_pandas(coded.reindex(columns=SEARCH.names), SEARCH, preserve_index=False)
    pq.write_table(rows, folder / "trials.parquet")


@pytest.mark.parametrize("values", [VALUES, [None, None], [0.5]])
def test_a_report_is_written_whatever_there_is(values: list[float | None], tmp_path: Path) -> None:
    stored(tmp_path, made_up(values))
    written = write_search_report(tmp_path)
    assert all(path.stat().st_size > 0 for path in written)
    text = written[0].read_text()
    assert f"{len(values)} ({values.count(None)} pruned)" in text or None not in values
    assert len(load_trials(tmp_path)) == len(values)


def test_reasons_of_trials_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for draw in ("save_row", "_save_slices", "_save_parallel"):
        monkeypatch.setattr(search, draw, lambda *_: tmp_path / "none.png")
    stored(tmp_path, made_up([0.5, None]).assign(state="failed", reason="got <class 'x'>"))
    text = write_search_report(tmp_path)[0].read_text()
    assert "- tune:ssvae/sfe-ma trial 1: got &lt;class 'x'>" in text


def test_lines_through_the_parameters_are_of_all_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were pruned too, dotted; not those of a study that has no value to go by."""
    figures: dict[str, Figure] = {}

    def saved(figure: Figure, stem: Path) -> Path:
        figures[stem.name] = figure
        return stem

    monkeypatch.setattr(search, "save_figure", saved)
    stored(tmp_path, pd.concat([made_up(VALUES), made_up([None], "sfe")]))
    write_search_report(tmp_path)
    (axes,) = figures["parallel-ssvae"].axes
    styles = [line.get_linestyle() for line in axes.lines]
    assert styles == [":" if value is None else "-" for value in VALUES]


def test_what_is_no_search_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="can't be read"):
        load_trials(tmp_path)
    stored(tmp_path, made_up(VALUES).assign(schema_version=99))
    with pytest.raises(ResultsError, match="schema"):
        load_trials(tmp_path)
    stored(tmp_path, made_up(VALUES))
    path = tmp_path / "trials.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.drop_columns(["metrics"]), path)
    with pytest.raises(ResultsError, match=r"trials\.parquet has other columns than a search's"):
        load_trials(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("task", "../../x", "has '../../x' in the column task, which is no name"),
        ("estimator", None, "has rows without estimator"),
        ("study", None, "has rows without study"),
        ("objectives", [], "has a value in the column objectives that is none of a search"),
        ("objectives", ["accuracy"] * 3, "has a trial with 2 values of accuracy, accuracy, acc"),
        ("parameters", [3], "has a value in the column parameters that is none of a search"),
        ("values", "high", "has a value in the column values that is none of a search"),
        ("space", {"settings.k": "{}"}, "has a value in the column space that is none of a search"),
    ],
)
def test_trials_that_no_search_wrote_are_refused(
    column: str, value: object, words: str, tmp_path: Path
) -> None:
    table = made_up(VALUES)
    table[column] = [value] * len(table)
    stored(tmp_path, table)
    with pytest.raises(ResultsError) as error:
        load_trials(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'trials.parquet'} {words}")
    assert str(error.value).endswith(": run run_bench.py tune again")


def test_trials_that_are_no_json_are_refused(tmp_path: Path) -> None:
    stored(tmp_path, made_up(VALUES))
    path = tmp_path / "trials.parquet"
    rows = pq.read_table(path)
    place = rows.column_names.index("metrics")
    for text in ("{", None):
        broken = pa.array([text] * len(rows), pa.string())
        pq.write_table(rows.set_column(place, "metrics", broken), path)
        with pytest.raises(ResultsError, match="has a value in the column metrics that is none"):
            load_trials(tmp_path)
