"""Runs that are interrupted or killed, workers that die, full disks: nothing done is lost.

docs/RELIABILITY.md has a line for each.
"""

import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from analysis.load import load_results
from tests.bench.conftest import ROOT, started

FAULTY = """
import os, signal, time
from estimators.registry import register
from estimators.sampled.score_function import ScoreFunction

@register
class Fail(ScoreFunction):
    name = "fail"

    def propose(self, q, features, sampler):
        raise ZeroDivisionError("by nought")

@register
class Die(ScoreFunction):
    name = "die"

    def propose(self, q, features, sampler):
        os.kill(os.getpid(), signal.SIGKILL)

@register
class Slow(ScoreFunction):
    name = "slow"

    def propose(self, q, features, sampler):
        time.sleep(0.3)  # twenty-odd times an epoch
        return super().propose(q, features, sampler)
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tiny: Path, tmp_path: Path) -> Iterator[Start]:
    """Start grids of the tiny profile in processes that end with the test, and all they started.

    They know estimators whose proposals fail in several ways, or take their time.
    """
    (tmp_path / "faulty.py").write_text(FAULTY)
    info = tmp_path / "faulty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[discrete_gradients.estimators]\nfaulty = faulty\n")
    processes = []

    def begin(*arguments: object, limit: int | None = None) -> subprocess.Popen[str]:
        def prepare() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        command = [sys.executable, "-m", "tests.bench.grid_process", "--profile", tiny]
        processes.append(
            subprocess.Popen(
                [*map(str, command), *map(str, arguments)],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                preexec_fn=prepare,
            )
        )
        return processes[-1]

    yield begin
    for process in processes:
        kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a run and its workers, as the end of a machine does."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def ended(process: subprocess.Popen[str], code: int = 0) -> dict[str, str]:
    """The status of each cell that a process has told when it ends, each told once."""
    written, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    lines = [json.loads(line) for line in written.splitlines()]
    told = {line["cell"]: line["status"] for line in lines}
    assert len(told) == len(lines)
    return told


def wait_for(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes_of(run: int) -> list[int]:
    """The workers of a run."""
    command = ["pgrep", "-P", str(run), "-f", "LokyProcess"]
    return [*map(int, subprocess.run(command, capture_output=True, text=True).stdout.split())]


def lengthen(tiny: Path, epochs: int) -> None:
    tiny.write_text(tiny.read_text().replace("epochs = 1", f"epochs = {epochs}"))


def cells(out: Path) -> list[Path]:
    return [*out.glob("cells/*/*/[!.]*.parquet")]


def numbers(out: Path) -> pd.DataFrame:
    """What is the same however often a grid was killed."""
    index = ["task", "estimator", "seed", "step", "split"]
    columns = ["status", "loss", "accuracy", "elbo", "decoder_calls", "gradient_norm", "key"]
    return load_results(out).set_index(index)[columns].sort_index()


def test_an_interrupt_before_anything_has_begun_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the program is still being imported."""

    class Importing(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "bench.cli.app", Importing("bench.cli.app"))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "run_bench.py"), run_name="__main__")
    assert ended.value.code == 130


@pytest.mark.parametrize(
    ("request_to_stop", "jobs"),
    [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 2), (signal.SIGHUP, 2)],
)
def test_an_interrupted_run_keeps_what_is_done(
    tiny: Path, tmp_path: Path, request_to_stop: signal.Signals, jobs: int
) -> None:
    """And leaves no process behind."""
    lengthen(tiny, 40)
    out = tmp_path / "results"
    with started("--profile", tiny, "--out", out, "--jobs", jobs) as process:
        wait_for(
            lambda: len(cells(out)) >= 10 and len(processes_of(process.pid)) == jobs - jobs % 2
        )
        workers = processes_of(process.pid)
        process.send_signal(request_to_stop)
        _, errors = process.communicate(timeout=60)
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert process.returncode == 130
    assert "run the same command to go on" in errors
    assert "Traceback" not in errors
    assert len(load_results(out)) >= 10


def test_a_killed_worker_costs_nothing_but_time(start: Start, tiny: Path, tmp_path: Path) -> None:
    """The cell that it had is run again, alone, and the others go on."""
    lengthen(tiny, 20)
    out = tmp_path / "results"
    names = ("--tasks", "ssvae", "--estimators", "sfe,dense,nvil,none", "--seeds", 1)
    process = start(*names, "--out", out, "--jobs", 2)
    wait_for(lambda: any(path.name != "grid" for path in out.glob("running/*")))
    os.kill(processes_of(process.pid)[0], signal.SIGKILL)
    told = ended(process)
    assert {*told.values()} == {"ok"}
    assert len(told) == 4
    assert set(load_results(out)["estimator"]) == {"sfe", "dense", "nvil", "none"}


@pytest.mark.slow
def test_whatever_happens_every_cell_has_its_outcome(
    start: Start, tiny: Path, tmp_path: Path
) -> None:
    """An exception, a process that dies, a loss that diverges, a training that takes too long, a
    pair that can't be: and a cell that is well."""
    lengthen(tiny, 20)
    wild = "[tasks.ssvae.estimators.dense.training]\nlearning_rate = 1e30\n"
    tiny.write_text(tiny.read_text() + wild)
    out = tmp_path / "results"
    names = "slow,fail,die,dense,sparsemap-budget,none"
    arguments = ("--tasks", "ssvae", "--estimators", names, "--seeds", 1, "--out", out)
    told = ended(start(*arguments, "--jobs", 2, "--time-limit", "30s"))
    statuses = {name.split("/")[1]: status for name, status in told.items()}
    assert statuses == {
        "slow": "timeout", "fail": "failed", "die": "failed", "dense": "diverged",
        "sparsemap-budget": "skipped", "none": "ok",
    }  # fmt: skip
    rows = load_results(out).groupby("estimator").last()
    assert rows["status"].to_dict() == statuses
    assert rows.loc["slow", "reason"] == "took more than 30 s (--time-limit)"
    assert rows.loc["slow", "step"] > 0
    assert "by nought (faulty.py:" in rows.loc["fail", "reason"]
    assert "in propose" in rows.loc["fail", "traceback"]
    assert "its process was killed" in rows.loc["die", "reason"]
    assert "at step" in rows.loc["dense", "reason"]


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_was(
    start: Start, tiny: Path, tmp_path: Path
) -> None:
    """Workers and all: in the end its numbers are those of a run that was left alone."""
    lengthen(tiny, 5)
    grid = ("--tasks", "bitvector", "--estimators", "sfe,nvil,none,rloo", "--seeds", 2)
    out, whole = tmp_path / "results", tmp_path / "whole"
    alone = start(*grid, "--out", whole, "--jobs", 1)
    killed = start(*grid, "--out", out, "--jobs", 2)
    wait_for(lambda: len(cells(out)) >= 2)
    kill(killed)
    done = {path: path.stat().st_mtime_ns for path in cells(out)}
    told = ended(start(*grid, "--out", out, "--jobs", 1))
    assert [*told.values()].count("stored") == len(done)
    assert [*told.values()].count("ok") == 8 - len(done)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())
    assert not (out / "running").exists()
    assert set(ended(alone).values()) == {"ok"}
    pd.testing.assert_frame_equal(numbers(out), numbers(whole))


@pytest.mark.slow
def test_two_runs_in_one_folder_share_its_cells(start: Start, tiny: Path, tmp_path: Path) -> None:
    """Both end with all outcomes; each cell is computed by one of them."""
    lengthen(tiny, 10)
    out = tmp_path / "results"
    grid = ("--tasks", "bitvector", "--estimators", "sfe,nvil,none,rloo", "--seeds", 3)
    both = [start(*grid, "--out", out, "--jobs", 1) for _ in range(2)]
    one, two = (ended(process) for process in both)
    assert len(one) == len(two) == 12
    assert {(one[name], two[name]) for name in one} <= {("ok", "stored"), ("stored", "ok")}
    assert set(load_results(out)["status"]) == {"ok"}
    assert not (out / "running").exists()


@pytest.mark.slow
def test_a_run_takes_over_from_one_that_is_killed_beside_it(
    start: Start, tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results"
    lengthen(tiny, 20)
    grid = ("--tasks", "bitvector", "--seeds", 1, "--out", out, "--jobs", 1)
    first = start(*grid, "--estimators", "slow")
    wait_for(lambda: any(path.name != "grid" for path in out.glob("running/*")))
    second = start(*grid, "--estimators", "slow,none", "--time-limit", "10s")
    wait_for(lambda: len(cells(out)) == 1)  # and so the second has left the other to the first
    kill(first)
    told = ended(second)
    assert told == {"bitvector/none/0": "ok", "bitvector/slow/0": "timeout"}


@pytest.mark.slow
def test_a_full_disk_ends_a_run_in_a_line_and_leaves_no_half_file(
    start: Start, tmp_path: Path
) -> None:
    """Files may not grow beyond some size, which is an error of the same kind."""
    out = tmp_path / "results"
    grid = ("--tasks", "ssvae", "--estimators", "none,sfe", "--seeds", 1, "--out", out)
    process = start(*grid, "--jobs", 2, limit=4096)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.splitlines()[-1].endswith(
        "can't be stored: file too large: mend that, and run the same command"
    )
    assert "Traceback" not in errors
    assert not [path for path in out.glob("cells/**/*") if path.is_file()]
    assert set(ended(start(*grid, "--jobs", 1)).values()) == {"ok"}
