"""Tables and figures of gradient quality, from small tables made by hand."""

import json
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.gradient_figures import (
    bias_along_settings,
    bias_along_training,
    effect_of,
    variance_against_calls,
)
from analysis.gradient_rows import Z, norm_interval, pooled, swept
from analysis.gradients import (
    budget_table,
    group_table,
    overview,
    quality_table,
    write_gradient_report,
)
from analysis.load import load_gradients
from analysis.schema import GRADIENTS
from analysis.stored import ResultsError
from tests.analysis.synthetic import write

GROUPS = ("scores", "encoder", "decoder")

WIDER = 3.0
"""Standard errors to the upper limit of a squared bias, of a single seed."""


def rows_of(
    estimator: str,
    knob: str | None = None,
    value: float | None = None,
    *,
    seed: int = 0,
    norm: float = 2.0,
    variance: float = 0.0,
    bias: float = 0.0,
    calls: float = 1.0,
    milliseconds: float = 1.0,
    settings: dict[str, float] | None = None,
    share: float = 1.0,
    declared: str = "unbiased",
) -> list[dict[str, object]]:
    """Rows of one measurement; bias and variance are relative to `norm`."""
    error = 0.01 if variance else 0.0
    row: dict[str, object] = {
        "task": "ssvae", "estimator": estimator, "seed": seed, "key": f"{estimator}{value}{seed}",
        "status": "ok", "reason": None, "share": share, "step": int(100 * share), "knob": knob,
        "knob_value": value, "exact_norm": norm, "plain_norm": norm, "objective_distance": 0.0,
        "bias_square": (bias * norm) ** 2, "bias_square_error": error * norm**2,
        "bias_high": (bias**2 + WIDER * error) ** 0.5 * norm,
        "variance": variance * norm**2, "variance_error": 0.1 * variance * norm**2, "cosine": 1.0,
        "cosine_error": 0.01, "declared": declared, "decoder_calls": calls,
        "slopes": 0.0, "oracle_calls": 0.0, "seconds": milliseconds / 1e3, "draws": 64,
        "hyperparameters": json.dumps({"estimator": settings or {}}),
        "schema_version": GRADIENTS.version, "threads": 1, "cells_beside": 0, "device": "cpu",
        "machine": "one", "kernels": "AVX2",
    }  # fmt: skip
    if not variance:
        row["cosine_error"] = 0.0
    return [row | {"group": group} for group in GROUPS]


@pytest.fixture
def table() -> pd.DataFrame:
    one = {"samples": 1, "decay": 0.9}
    return pd.DataFrame(
        [
            *rows_of("sfe-ma", variance=8, settings=one),
            *rows_of("sfe-ma", variance=9, settings=one, share=0.5),
            *rows_of("sfe-ma", "samples", 4, variance=2, calls=4, settings=one | {"samples": 4}),
            *rows_of(
                "sfe-ma", "samples", 16, variance=0.5, calls=16, milliseconds=4,
                settings=one | {"samples": 16},
            ),
            *rows_of("sfe-ma", "decay", 0.5, variance=8.5, settings=one | {"decay": 0.5}),
            *rows_of("rloo", variance=0.8, calls=4, milliseconds=2, settings={"samples": 4}),
            *rows_of(
                "rloo", "samples", 16, variance=0.3, calls=16, milliseconds=8,
                settings={"samples": 16},
            ),
            *rows_of(
                "gumbel", variance=1.0, bias=0.6, settings={"samples": 1, "initial": 1.0},
                declared="biased",
            ),
            *rows_of("dense", calls=10, milliseconds=6),
        ]
    )  # fmt: skip


def test_seeds_are_pooled_relative_to_their_own_gradients() -> None:
    rows = [
        *rows_of("gumbel", norm=1.0, variance=2.0, bias=0.3, seed=0),
        *rows_of("gumbel", norm=100.0, variance=4.0, bias=0.4, seed=1),
    ]
    (row, *_) = pooled(pd.DataFrame(rows)).to_dict("records")
    assert row["seeds"] == 2
    assert row["variance"] == pytest.approx(3)
    assert row["variance_error"] == pytest.approx((0.2**2 + 0.4**2) ** 0.5 / 2)
    assert row["bias"] == pytest.approx(((0.09 + 0.16) / 2) ** 0.5)
    error = 0.01 / 2**0.5
    assert row["bias_low"] == pytest.approx((0.125 - Z * error) ** 0.5)
    assert row["bias_high"] == pytest.approx((0.125 + WIDER * error) ** 0.5)
    assert row["signal_to_noise"] == pytest.approx(3**-0.5)
    assert row["mean_squared_error"] == pytest.approx(3.125)


def test_times_are_of_cells_under_equal_circumstances(tmp_path: Path, table: pd.DataFrame) -> None:
    slow = [
        *rows_of("dense", calls=10, milliseconds=9000, seed=1),
        *rows_of("sfe-learned", variance=8, milliseconds=9000),
    ]
    mixed = pd.concat([table, pd.DataFrame(slow).assign(machine="two")], ignore_index=True)
    frame = quality_table(pooled(mixed), "ssvae")
    assert frame.loc["dense", "ms"] == "6.0"
    assert frame.loc["sfe-learned", "ms"] == "–"
    assert "in 8.0 ms" in budget_table(pooled(mixed), "ssvae")
    lost = pd.DataFrame(rows_of("nvil")[:1]).assign(status="failed", reason="got <class>")
    report, *_ = write_gradient_report(write(pd.concat([mixed, lost]), tmp_path, GRADIENTS))
    assert "- ssvae nvil 0: failed: got &lt;class>" in report.read_text()
    assert "Means over 2 seeds, over fewer of ssvae" in report.read_text()
    assert "equal circumstances (machine: one, two): times are those of most" in report.read_text()


def test_a_norm_s_interval_has_room_for_a_square_below_zero() -> None:
    assert norm_interval(4.0, below=3.0, above=5.0) == (2, 1, 3)
    assert norm_interval(-5.0, below=2.0, above=4.0) == (0, 0, 2)


def test_a_seed_s_square_below_zero_does_not_tighten_the_bound() -> None:
    rows = [row | {"bias_square": -1.0} for row in rows_of("rloo", variance=2.0, norm=1.0)]
    (row, *_) = pooled(pd.DataFrame(rows)).to_dict("records")
    assert row["bias_high"] == pytest.approx((WIDER * 0.01) ** 0.5)


def test_what_was_not_ok_is_left_out(table: pd.DataFrame) -> None:
    failed = table.assign(status="failed")
    assert pooled(failed).empty
    assert len(pooled(pd.concat([table, failed]))) == len(table)


def test_the_effect_of_a_setting_starts_at_the_estimator_as_it_is_set(table: pd.DataFrame) -> None:
    rows = pooled(table)
    here = rows[(rows["group"] == "encoder") & (rows["share"] == 1)]
    found = swept(here, "samples")
    assert found[["estimator", "value"]].to_numpy().tolist() == [
        ["rloo", 4], ["rloo", 16], ["sfe-ma", 1], ["sfe-ma", 4], ["sfe-ma", 16]
    ]  # fmt: skip
    assert swept(here, "decay")["variance"].tolist() == [8.5, 8]


def test_the_table_has_a_line_for_each_setting_turned(table: pd.DataFrame) -> None:
    frame = quality_table(pooled(table), "ssvae")
    assert list(frame.index) == [
        "dense", "gumbel", "rloo", "rloo, samples = 16", "sfe-ma", "sfe-ma, decay = 0.5",
        "sfe-ma, samples = 4", "sfe-ma, samples = 16",
    ]  # fmt: skip
    assert frame.loc["dense", ["bias", "variance", "cosine"]].tolist() == ["0", "0", "1.000"]
    assert frame.loc["gumbel", "bias"] == "0.60 (0.58 to 0.62)"
    noise = pooled(table.assign(cosine_error=float("nan")))
    assert quality_table(noise, "ssvae").loc["gumbel", "cosine"] == "–"
    found = pooled(table.assign(declared="unbiased"))
    assert quality_table(found, "ssvae").loc["gumbel", "bias"] == "0.60 (0.58 to 0.62) †"
    assert frame.loc["rloo", "bias"] == "< 0.17"
    assert frame.loc["sfe-ma", "variance"] == "8"
    assert frame.loc["gumbel", "MSE"] == "1.36"
    assert frame.loc["gumbel", "cosine"] == "1.000 ± 0.020"


def test_budgets_are_measured_in_calls_and_reckoned_in_time(table: pd.DataFrame) -> None:
    frame = budget_table(pooled(table), "ssvae")
    assert list(frame.columns) == [
        "variance as set", "calls", "at 4 calls", "at 16 calls", "in 8.0 ms"
    ]  # fmt: skip
    assert frame.loc["sfe-ma"].tolist() == ["8", "1.0", "2", "0.5", "0.25"]  # twice in 8 ms
    assert frame.loc["rloo"].tolist() == ["0.8", "4.0", "0.8", "0.3", "0.3"]
    assert frame.loc["dense"].tolist() == ["0", "10.0", "–", "0", "0"]
    assert frame.loc["gumbel", "at 4 calls"] == "–"  # not measured


def test_slopes_are_work(table: pd.DataFrame) -> None:
    """rloo has twice as many calls for the work of the dearest, which has a slope for each call."""
    table["slopes"] = table["decoder_calls"].where(table["estimator"] == "sfe-ma", 0.0)
    frame = budget_table(pooled(table), "ssvae")
    assert frame["in 32 calls and slopes"].to_dict() == {
        "sfe-ma": "0.5", "rloo": "0.15", "gumbel": "–", "dense": "0",
    }  # fmt: skip


def test_pairs_are_samples() -> None:
    rows = [
        *rows_of("disarm", variance=4, calls=2, settings={"pairs": 1}),
        *rows_of("disarm", "pairs", 2, variance=2, calls=4, settings={"pairs": 2}),
        *rows_of("sfe", variance=8, settings={"samples": 1}),
        *rows_of("sfe", "samples", 4, variance=2, calls=4, settings={"samples": 4}),
    ]
    assert budget_table(pooled(pd.DataFrame(rows)), "ssvae").loc["disarm", "at 4 calls"] == "2"


def test_groups_and_the_overview_have_a_line_for_each_estimator(table: pd.DataFrame) -> None:
    rows = pooled(table)
    frame = group_table(rows, "ssvae")
    assert frame.loc["sfe-ma", "decoder: signal / noise"] == "0.354"
    assert frame.loc["dense", "scores: signal / noise"] == "∞"
    short = overview(rows)
    assert sorted(short.index) == ["dense", "gumbel", "rloo", "sfe-ma"]
    assert short.loc["sfe-ma", "ssvae: variance"] == "2"
    assert short.loc["dense", "ssvae: variance"] == "0 (10.0 calls)"


def test_tables_without_any_sweep(table: pd.DataFrame) -> None:
    alone = pooled(table[table["estimator"] == "dense"])
    assert budget_table(alone, "ssvae").columns.tolist() == ["variance as set", "calls"]
    assert overview(alone).loc["dense", "ssvae: variance"] == "0 (10.0 calls)"


def test_figures_show_what_was_measured(table: pd.DataFrame) -> None:
    rows = pooled(table)
    axes = Figure().subplots()
    variance_against_calls(rows, "ssvae", axes)
    drawn = {
        line.get_label(): [float(x) for x in line.get_xdata()]  # type: ignore[union-attr]
        for line in axes.lines
    }
    assert drawn["sfe-ma"] == [1, 4, 16]
    assert drawn["dense"] == [10]
    axes = Figure().subplots()
    effect_of("decay")(rows, "ssvae", axes)
    assert [float(y) for y in axes.lines[0].get_ydata()] == pytest.approx([8.5**0.5, 8**0.5])  # type: ignore[union-attr]
    axes = Figure().subplots()
    bias_along_training(rows, "ssvae", axes)
    assert any(line.get_xdata()[0] == 50 for line in axes.lines if len(line.get_xdata()))  # type: ignore


def test_what_is_biased_is_drawn_along_what_trades_it_for_variance(table: pd.DataFrame) -> None:
    cold = rows_of("gumbel", "initial", 0.5, variance=3, bias=0.2, declared="biased")
    rows = pooled(pd.concat([table, pd.DataFrame(cold)]))
    axes = Figure().subplots()
    bias_along_settings(rows, "ssvae", axes)
    (line,) = (line for line in axes.lines if line.get_label() == "gumbel")
    assert sorted(map(float, line.get_xdata())) == [1, 3]  # type: ignore[arg-type]
    assert sorted(map(float, line.get_ydata())) == pytest.approx([0.2, 0.6])  # type: ignore[arg-type]


def test_the_report_is_written_from_rows_alone(table: pd.DataFrame, tmp_path: Path) -> None:
    write(table, tmp_path, GRADIENTS)
    report, *figures = write_gradient_report(tmp_path)
    text = report.read_text()
    assert "\nMeans over 1 seed.\n" in text
    assert "| estimator | ssvae: bias | ssvae: variance |" in text
    assert text.count("| sfe-ma |") == 4
    assert {path.stem for path in figures} >= {"effect_of_decay", "effect_of_samples"}


def test_slopes_and_oracle_calls_have_columns_where_there_are_any(table: pd.DataFrame) -> None:
    """Rows of an earlier version, which did not count them, have none."""
    for frame in (quality_table, budget_table):
        assert not {"slopes", "oracle calls"} & {*frame(pooled(table), "ssvae")}
        assert not {"slopes", "oracle calls"} & {*frame(pooled(table.assign(slopes=None)), "ssvae")}
    table["slopes"] = (table["estimator"] == "gumbel") * 2.0
    table.loc[table["estimator"] == "dense", "slopes"] = float("nan")
    for frame in (quality_table, budget_table):
        shown = frame(pooled(table), "ssvae")
        assert shown.loc[["gumbel", "rloo", "dense"], "slopes"].tolist() == ["2.0", "0.0", "–"]
        assert "oracle calls" not in shown


def test_measurements_of_another_schema_are_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    write(table.assign(schema_version=2), tmp_path, GRADIENTS)
    with pytest.raises(ResultsError, match=f"schema 2, this is {GRADIENTS.version}: read"):
        load_gradients(tmp_path)


def test_an_objective_without_a_gradient_is_said_to_have_none() -> None:
    """A sparse q that is one-hot in every row, at one of two seeds: no 0/0 in the tables."""
    flat = rows_of("sparsemax", seed=1)
    for row in flat:
        row["exact_norm"] = 0.0
    rows = pooled(pd.DataFrame([*rows_of("sparsemax"), *flat, *rows_of("dense")]))
    assert rows.loc[rows["estimator"] == "sparsemax", "flat"].eq(1).all()
    shown = quality_table(rows, "ssvae")
    assert list(shown["bias"]) == ["0", "0 ‡"]
    assert list(shown["variance"]) == ["0", "0"]
    assert "nan" not in shown.to_string() + overview(rows).to_string()


def test_noise_around_a_gradient_of_zero_is_not_called_none() -> None:
    noisy = rows_of("sfe", variance=1.0)
    for row in noisy:
        row["exact_norm"] = 0.0
    assert pooled(pd.DataFrame(noisy))["variance"].map(lambda value: value > 1e9).all()


def test_an_estimator_that_makes_so_many_calls_as_it_is_set_needs_no_sweep() -> None:
    rows = pooled(
        pd.DataFrame(
            [
                *rows_of("sfe", variance=8, settings={"samples": 1}),
                *rows_of("sfe", "samples", 4, variance=2, calls=4, settings={"samples": 4}),
                *rows_of("rloo", variance=0.8, calls=4, settings={"samples": 4}),
            ]
        )
    )
    assert budget_table(rows, "ssvae").loc["rloo", "at 4 calls"] == "0.8"
    assert list(overview(rows)["ssvae: variance"]) == ["0.8", "2"]
