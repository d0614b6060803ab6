"""What is made of rows is a function of their set, whoever has sorted, shuffled or doubled them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis import report
from analysis.gradient_rows import pooled
from analysis.load import (
    cell_rows,
    end_rows,
    final_rows,
    last_rows,
    load_gradients,
    load_results,
    load_timing,
)
from analysis.report import write_report
from analysis.schema import GRADIENTS, TIMING, TRAINING, Kind
from analysis.search import write_search_report
from analysis.stored import ResultsError, read_cell
from analysis.timing import times_of_steps
from analysis.trials import load_trials
from bench.results.store import compact
from tests.analysis import synthetic
from tests.analysis.test_gradients import rows_of as gradient_rows_of
from tests.analysis.test_search import made_up
from tests.analysis.test_search import stored as write_trials
from tests.analysis.test_timing import rows_of as timing_rows_of

NAMES = ["sfe", "dense", "rloo", "none"]


def training() -> pd.DataFrame:
    """Cells of which the last model and the best have other scores, some of them lost."""
    table = synthetic.grid(["game", "bitvector"], NAMES, 3)
    for column, change in (("accuracy", -0.1), ("nll", 0.1)):
        table.loc[table["selection"] == "last", column] += change
    lost = [
        synthetic.cell("game", "nvil", seed, 0.5, status=status)
        for seed, status in enumerate(("failed", "diverged", "skipped"))
    ]
    return pd.concat([table, synthetic.table_of(lost)], ignore_index=True)


def gradients() -> pd.DataFrame:
    rows = [
        row
        for name, variance in (("sfe", 8.0), ("rloo", 2.0), ("dense", 0.0))
        for seed in range(2)
        for share in (0.5, 1.0)
        for row in gradient_rows_of(name, variance=variance + seed, seed=seed, share=share)
    ]
    return pd.DataFrame(rows)


def timing() -> pd.DataFrame:
    return pd.DataFrame([*timing_rows_of("dense", 3, 2, 9), *timing_rows_of("sfe", 1, 1.5, 1.2)])


KINDS: dict[str, tuple[Kind, Callable[[], pd.DataFrame], Callable[[Path], pd.DataFrame]]] = {
    "training": (TRAINING, training, load_results),
    "gradients": (GRADIENTS, gradients, load_gradients),
    "timing": (TIMING, timing, load_timing),
}

ORDERS = st.one_of(
    st.randoms(use_true_random=False).map(lambda random: ("shuffle", random.randrange(2**31))),
    st.tuples(
        st.sampled_from(["step", "seed", "selection", "split", "key", "status"]),
        st.booleans(),
    ),
)


def reordered(table: pa.Table, order: tuple[str, int]) -> pa.Table:
    """The rows shuffled, or sorted by a column as pandas does it."""
    how, which = order
    frame = table.to_pandas()
    if how == "shuffle":
        frame = frame.sample(frac=1, random_state=which)
    elif how in frame:
        frame = frame.sort_values(how, ascending=bool(which))
    return table.take(pa.array(frame.index))


@pytest.mark.parametrize("kind", KINDS)
@given(order=ORDERS)
@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_are_read_in_one_order(tmp_path: Path, kind: str, order: tuple[str, int]) -> None:
    columns, make, load = KINDS[kind]
    path = synthetic.write(make(), tmp_path, columns) / "table.parquet"
    expected, stored = load(tmp_path), pq.read_table(path)
    pq.write_table(reordered(stored, order), path)
    pd.testing.assert_frame_equal(load(tmp_path), expected)


@given(order=ORDERS)
@settings(
    deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_rows_of_a_cell_are_read_as_they_were_written(
    tmp_path: Path, order: tuple[str, int]
) -> None:
    """Its last row is of the best model, whoever has written the file again."""
    table = training()
    path = synthetic.write_cells(table[table["key"] == "gamesfe0"], tmp_path)[0]
    expected = read_cell(path)
    steps = [(row["selection"], row["step"]) for row in expected.to_pylist()]
    assert steps == [(None, 0), (None, 10), (None, 20), ("last", 20), ("best", 10)]
    pq.write_table(reordered(pq.ParquetFile(path).read(), order), path)
    assert read_cell(path).equals(expected)


def test_a_report_is_of_the_set_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last digit of its tables and of the page's numbers."""
    monkeypatch.setattr(report, "save_figures", lambda *_: [])
    folder = tmp_path / "results"
    path = synthetic.write(training(), folder) / "table.parquet"
    stored = pq.read_table(path)

    def content() -> dict[str, bytes]:
        write_report(folder)
        files = [p for p in folder.rglob("*") if p.is_file() and p != path]
        return {p.name: p.read_bytes() for p in files}

    expected = content()
    for order in (("shuffle", 1), ("selection", True), ("step", False)):
        pq.write_table(reordered(stored, order), path)
        assert content() == expected


@given(seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=10)
def test_what_is_last_and_best_does_not_hang_on_the_place(seed: int) -> None:
    """Of tables that a notebook has sorted, too."""
    table = training()
    other = table.sample(frac=1, random_state=seed)
    for choose in (final_rows, last_rows, end_rows, cell_rows):
        pd.testing.assert_frame_equal(choose(other).sort_index(), choose(table).sort_index())
    measured = gradients()
    shuffled = measured.sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(pooled(shuffled), pooled(measured))
    times = timing()
    found = times_of_steps(times.sample(frac=1, random_state=seed), "ssvae")
    pd.testing.assert_frame_equal(found, times_of_steps(times, "ssvae"))


def test_one_row_of_each_cell() -> None:
    """That of the best model, or the last that the cell came to."""
    table = training()
    rows = cell_rows(table).set_index("key")
    assert rows.loc["gamesfe0", ["selection", "step"]].tolist() == ["best", 10]
    assert rows.loc["gamenvil1", "step"] == 20
    assert sorted(rows.index) == sorted(table["key"].unique())
    earlier = table[table["selection"] != "best"].assign(selection=None)  # of version 2
    assert (final_rows(earlier)["step"] == 20).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [1.0, 0.01])
def test_rows_that_are_there_twice_are_refused(tmp_path: Path, kind: str, part: float) -> None:
    columns, make, load = KINDS[kind]
    table = make()
    again = table.sample(frac=part, random_state=0) if part * len(table) > 1 else table[:1]
    path = synthetic.write(pd.concat([table, again]), tmp_path, columns) / "table.parquet"
    with pytest.raises(ResultsError, match=r"of the cell .* more than once: keep one") as error:
        load(tmp_path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_other_numbers_in_a_row_that_is_there_already_are_refused(tmp_path: Path) -> None:
    """Two folders put into one table, say."""
    table = training()
    synthetic.write(pd.concat([table, table[3:4].assign(accuracy=0.99)]), tmp_path)
    words = r"\(split 'test', selection 'last', step 20\) of the cell 'gamesfe0' more than once"
    with pytest.raises(ResultsError, match=words):
        load_results(tmp_path)


@pytest.mark.parametrize("column", ["seed", "status", "task", "estimator"])
def test_a_key_of_two_cells_is_refused(tmp_path: Path, column: str) -> None:
    table = training()
    other = table.loc[0, column]
    table.loc[0, column] = 7 if column == "seed" else f"{other}2"
    synthetic.write(table, tmp_path)
    with pytest.raises(ResultsError, match="rows of several cells under the key 'gamesfe0': move"):
        load_results(tmp_path)


def test_a_cell_in_two_folders_is_refused(tmp_path: Path) -> None:
    path, *_ = synthetic.write_cells(training(), tmp_path)
    copy = tmp_path / "cells" / "task=game" / "estimator=other" / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    with pytest.raises(ResultsError, match=r"is the cell of .*: remove one of them"):
        load_results(tmp_path)


def test_a_compacted_table_has_the_order_of_the_cells(tmp_path: Path) -> None:
    synthetic.write_cells(training(), tmp_path / "cells")
    table = pq.read_table(compact(tmp_path / "cells"))
    (tmp_path / "table").mkdir()
    pq.write_table(reordered(table, ("shuffle", 3)), tmp_path / "table" / "table.parquet")
    assert pq.read_table(compact(tmp_path / "table")).equals(table)


def test_trials_are_read_in_one_order_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.search.save_row", lambda *_: tmp_path / "none.png")
    monkeypatch.setattr("analysis.search._save_slices", lambda *_: tmp_path / "none.png")
    monkeypatch.setattr("analysis.search._save_parallel", lambda *_: tmp_path / "none.png")
    values = [0.3, 0.1, None, 0.9, 0.15, 0.9]
    table = pd.concat([made_up(values), made_up(values[::-1], "nvil")], ignore_index=True)
    write_trials(tmp_path, table)
    expected, text = load_trials(tmp_path), write_search_report(tmp_path)[0].read_text()
    write_trials(tmp_path, table.sample(frac=1, random_state=np.random.RandomState(1)))
    pd.testing.assert_frame_equal(load_trials(tmp_path), expected)
    assert write_search_report(tmp_path)[0].read_text() == text
    write_trials(tmp_path, pd.concat([table, table[2:3]]))
    with pytest.raises(ResultsError, match="has place 2 of tune:ssvae/sfe-ma more than once"):
        load_trials(tmp_path)
