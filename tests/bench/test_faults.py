"""Runs that are interrupted, and workers that are killed: nothing that was done is lost."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from analysis.load import load_results
from tests.bench.conftest import started


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_run_keeps_what_is_done(tiny: Path, tmp_path: Path, jobs: int) -> None:
    text = tiny.read_text().replace("epochs = 1", "epochs = 40")
    tiny.write_text(text)
    out = tmp_path / "results"
    with started("--profile", tiny, "--out", out, "--jobs", jobs) as process:
        deadline = time.monotonic() + 120
        while len([*out.rglob("*.parquet")]) < 10 and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(2)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command to go on" in errors
    assert "Traceback" not in errors
    assert len(load_results(out)) >= 10


def test_a_killed_worker_costs_nothing_but_time(tiny: Path, tmp_path: Path) -> None:
    """The cell that it had is run again, alone, and the others go on."""
    tiny.write_text(tiny.read_text().replace("epochs = 1", "epochs = 20"))
    out = tmp_path / "results"
    arguments = ("--tasks", "ssvae", "--estimators", "sfe,dense,nvil,none", "--seeds", 1)
    with started("--profile", tiny, "--out", out, "--jobs", 2, *arguments) as process:
        deadline = time.monotonic() + 120
        while not [*out.glob("running/*")] and time.monotonic() < deadline:
            time.sleep(0.1)
        workers = subprocess.run(
            ["pgrep", "-P", str(process.pid), "-f", "LokyProcess"], capture_output=True, text=True
        )
        os.kill(int(workers.stdout.split()[0]), 9)
        written, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "4 ok" in written
    assert "Traceback" not in errors
    assert set(load_results(out)["estimator"]) == {"sfe", "dense", "nvil", "none"}
