"""The short pass for times: what is on its clock, and that cells run alone."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.load import load_timing
from bench.cells.timing import REPETITIONS, STEPS, time_cell
from bench.cells.training import Trainer
from bench.profiles.profile import Profile
from tests.bench.conftest import Here, cell_of


def test_a_cell_has_the_times_and_calls_of_its_steps_alone(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def train(trainer: Trainer, steps: int) -> None:
        """Steps that take 3 ms each, the first repetition twice that; for a row 2 calls, 3 slopes
        and one call of the oracle."""
        taken.append(steps)
        trainer.step += steps
        trainer.rows += 5 * steps
        for name, calls in (("latent", 10), ("slopes", 15), ("oracle", 5)):
            trainer.cost.calls[name] += calls * steps
        trainer.train_seconds += steps * (0.006 if trainer.step == STEPS else 0.003)

    def evaluate(*_: object) -> None:
        pytest.fail("an evaluation")

    monkeypatch.setattr(Trainer, "train", train)
    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    shares: list[float] = []
    rows = list(time_cell(cell_of(profile, "bitvector", "sfe"), report=shares.append))
    assert [row["milliseconds"] for row in rows] == pytest.approx([6] + [3] * (REPETITIONS - 1))
    for name, each in (("decoder_calls", 2), ("slopes", 3), ("oracle_calls", 1)):
        assert [row[name] for row in rows] == [each] * REPETITIONS
    assert rows[-1]["step"] == REPETITIONS * STEPS == sum(taken[1:])
    assert taken[0] < STEPS  # the copy that warms the machine up
    assert shares[-1] == 1


def test_a_timing_has_a_key_of_its_own_and_leaves_that_of_the_training(profile: Profile) -> None:
    cell = cell_of(profile, "ssvae", "sfe")
    assert replace(cell, timing=True).key != cell.key
    assert replace(cell, timing=True).basis == cell.basis


def test_a_grid_is_timed_one_cell_at_a_time_and_stored(
    here: Here, tiny: Path, tmp_path: Path
) -> None:
    command = (
        "--profile", tiny, "--timing", "--tasks", "ssvae,bitvector", "--seeds", 2,
        "--estimators", "dense,none,sfe,sparsemap-budget", "--out", tmp_path / "times",
    )  # fmt: skip
    done = here(*command)
    assert done.returncode == 0, done.stderr
    assert "16 cells:\n  14 ok\n   2 skipped" in done.stdout  # no budget of a class
    table = load_timing(tmp_path / "times")
    ok = table[table["status"] == "ok"]
    assert len(ok) == 14 * REPETITIONS
    assert (ok["cells_beside"] == 0).all()
    assert (ok["milliseconds"] > 0).all()
    calls = ok[ok["task"] == "ssvae"].groupby("estimator")["decoder_calls"].mean()
    assert calls.dropna().to_dict() == {"dense": 10, "sfe": 1}
    report = (tmp_path / "times" / "report.md").read_text()
    assert "| ssvae | ms a step |" in report
    assert (tmp_path / "times" / "figures" / "timed_steps.png").exists()
    assert "\n  14 stored\n" in here(*command).stdout
    copied = shutil.copytree(tmp_path / "times", tmp_path / "copied")
    merged = here("merge", tmp_path / "times", copied, "--out", tmp_path / "both")
    assert merged.returncode == 0, merged.stderr


@pytest.mark.parametrize(
    "option", [("--jobs", 2), ("--executor", "dask", "--scheduler", "tcp://x")]
)
def test_nothing_may_run_beside_a_timing(here: Here, option: tuple[object, ...]) -> None:
    done = here("--timing", *option)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "one cell at a time" in done.stderr


def test_times_and_trainings_keep_folders_apart(here: Here, tiny: Path, tmp_path: Path) -> None:
    some = ("--profile", tiny, "--tasks", "ssvae", "--estimators", "none", "--seeds", 1)
    assert here(*some, "--out", tmp_path / "out").returncode == 0
    done = here(*some, "--timing", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "holds training, not timing: give another folder" in done.stderr


@pytest.mark.parametrize(
    ("load", "options", "told"), [(0.1, (), False), (1.7, (), True), (1.7, ("--quiet",), False)]
)
def test_a_busy_machine_is_told_of(
    here: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    load: float, options: tuple[str, ...], told: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    done = here(
        "--profile", tiny, "--timing", "--tasks", "ssvae", "--estimators", "none", "--seeds", 1,
        "--out", tmp_path / "times", *options,
    )  # fmt: skip
    assert done.returncode == 0
    assert ("busy in the last minute (load 1.7)" in done.stdout) == told
