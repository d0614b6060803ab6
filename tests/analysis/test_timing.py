"""Tables of times of steps, from small tables made by hand."""

from pathlib import Path

import pandas as pd
import pytest

from analysis.load import load_timing
from analysis.schema import TIMING
from analysis.timing import times_of_steps, times_table, write_timing_report
from tests.analysis.synthetic import COMMON, write


def rows_of(estimator: str, *milliseconds: float, **columns: object) -> list[dict[str, object]]:
    common = {name: value for name, value in COMMON.items() if name in TIMING.columns.names}
    common |= {
        "task": "ssvae", "estimator": estimator, "seed": 0, "key": f"{estimator}{columns}",
        "schema_version": TIMING.version, "cells_beside": 0, "decoder_calls": 2.0,
        "slopes": 0.0, "oracle_calls": 0.0, "peak_memory_mb": 500.0, **columns,
    }  # fmt: skip
    return [
        common | {"repetition": place, "milliseconds": float(value)}
        for place, value in enumerate(milliseconds)
    ]


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        [
            *rows_of("dense", 30, 20, 21, 24, 1000),
            *rows_of("sfe", 5, 4, 6),
            *rows_of("sfe", 8, 8, 8, seed=1),
            *rows_of("sfe", 99, 99, seed=2, threads=2),
            *rows_of("nvil", 0, status="failed", reason="no memory\n<class>"),
        ]
    )


def test_times_are_medians_over_repetitions_and_seeds(table: pd.DataFrame) -> None:
    found = times_of_steps(table, "ssvae")
    assert list(found.index) == ["sfe", "dense"]  # fastest first; what failed has no time
    assert found["median"].to_dict() == {"dense": 24, "sfe": 7}  # slow ones weigh no more
    assert found["lower_quartile"].to_dict() == {"dense": 21, "sfe": 5.25}
    assert found["repetitions"].to_dict() == {"dense": 5, "sfe": 6}
    shown = times_table(table, "ssvae")
    assert shown.loc["dense", "quartiles"] == "21 to 30"
    assert shown.loc["dense", "× the fastest"] == "3.4"


def test_slopes_and_oracle_calls_have_columns_where_there_are_any(table: pd.DataFrame) -> None:
    shown = times_table(table, "ssvae")
    assert shown["decoder calls"].tolist() == ["2.0", "2.0"]
    assert not {"slopes", "oracle calls"} & {*shown}
    table["oracle_calls"] = (table["estimator"] == "dense") * 3.0
    shown = times_table(table, "ssvae")
    assert shown["oracle calls"].to_dict() == {"sfe": "0.0", "dense": "3.0"}
    assert "slopes" not in shown


def test_the_report_tells_of_what_it_leaves_out(table: pd.DataFrame, tmp_path: Path) -> None:
    folder = write(table, tmp_path / "times", TIMING)
    assert len(load_timing(folder)) == len(table)
    written = write_timing_report(folder)
    assert all(path.exists() for path in written)
    text = written[0].read_text()
    assert "Of 3 of 4 cells: 1 threads" in text  # the fourth had two
    assert "- ssvae nvil 0: failed: no memory &lt;class>" in text
    numbers = pd.read_csv(folder / "tables" / "ssvae_steps.csv", index_col="estimator")
    assert numbers.loc["dense", "median"] == 24


def test_the_report_names_all_code_that_it_is_of(table: pd.DataFrame, tmp_path: Path) -> None:
    """Stored cells stay when the code changes, and their times with them."""
    one_code = write(table.assign(torch="2.11"), tmp_path / "one", TIMING)
    assert "Cells differ" not in write_timing_report(one_code)[0].read_text()
    newer = table["estimator"] == "dense"
    table["commit"] = table["commit"].mask(newer, "fedcba987654321")
    table["torch"] = newer.map({True: "2.12", False: "2.11"})
    folder = write(table, tmp_path / "two", TIMING)
    text = write_timing_report(folder)[0].read_text()
    assert "torch 2.11, 2.12, threads: 1, commit 0123456789, fedcba9876." in text
    assert "Cells differ in commit, torch: these are not times of one code." in text
    assert "memory" not in (folder / "tables" / "ssvae_steps.csv").read_text()


def test_a_report_of_failures_alone_is_written(table: pd.DataFrame, tmp_path: Path) -> None:
    folder = write(table[table["status"] == "failed"], tmp_path / "times", TIMING)
    assert "no memory" in write_timing_report(folder)[0].read_text()
