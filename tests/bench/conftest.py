"""A profile that makes every cell tiny, cells made from it, and the command line."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from analysis import report
from bench.cells.cell import Cell, plan
from bench.cli import app as cli
from bench.profiles.profile import Profile, load_profile
from estimators.registry import all_estimators
from tasks.registry import all_tasks

ROOT = Path(__file__).parents[2]

SET = ("MPLBACKEND", "PYTHONSAFEPATH")
"""Environment variables that the command line sets."""

TINY = """
description = "as small as it gets"
seeds = 2
[training]
batch_size = 64
epochs = 1
baseline_learning_rate = 1e-3
[evaluation]
samples = 4
nll_samples = 64
[tasks.ssvae.settings]
hidden = 8
classifier_hidden = 8
[tasks.signal_game.settings]
vocabulary = 6
candidates = 4
embedding = 8
hidden = 8
episodes = 64
steps_per_epoch = 10
[tasks.signal_game.estimators.sfe.training]
entropy_weight = 0.05
[tasks.signal_game.estimators.topk-sparsemax.settings]
k = 3
[tasks.bitvector.settings]
bits = 4
hidden = 8
[tasks.listops.settings]
longest = 4
embedding = 8
hidden = 8
arcs = 8
states = 8
train = 160
validation = 32
test = 32
[tasks.clusters.settings]
clusters = 10
size = 10
train = 256
validation = 64
test = 64
[tasks.toy.settings]
bits = 4
initial = -0.5
steps_per_epoch = 10
[tasks.polynomial.settings]
variables = 4
steps_per_epoch = 10
[tasks.sbn.settings]
bits = 4
[tasks.categorical_vae.settings]
variables = 2
categories = 4
hidden = [8]
[tasks.subset_vae.settings]
variables = 2
items = 4
chosen = 2
wide = 8
narrow = 8
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The path of the tiny profile."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def profile(tiny: Path) -> Profile:
    return load_profile(str(tiny), [*all_tasks()], [*all_estimators()])


def cell_of(profile: Profile, task: str, estimator: str, seed: int = 0) -> Cell:
    """One cell of a profile's grid."""
    return plan([task], [estimator], seed + 1, profile)[seed].cell


def bench(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run_bench.py"), *map(str, arguments)]
    environment = {name: v for name, v in os.environ.items() if name != "BENCH_DATA_DIR"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


class Done(NamedTuple):
    """What came of a command."""

    returncode: int
    stdout: str
    stderr: str


Here = Callable[..., Done]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """The command line in this process and without figures: as `bench`, in much less time."""
    monkeypatch.delenv("BENCH_DATA_DIR", raising=False)
    monkeypatch.chdir(ROOT)
    for name in SET:
        monkeypatch.setenv(name, "")  # so that it is as it was after the test
    monkeypatch.setattr(report, "save_figures", lambda table, folder: [])
    monkeypatch.setattr(report, "save_examples", lambda table, folder: {})
    monkeypatch.setattr(report, "write_page", lambda folder, *parts: folder / "report.html")

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["run_bench.py", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Done(ended.value.code or 0, *capsys.readouterr())

    return call


def started(*arguments: object) -> subprocess.Popen[str]:
    """A running `bench`, which can be stopped also where the tests run in the background."""

    def heed() -> None:
        for request in (signal.SIGINT, signal.SIGHUP):
            signal.signal(request, signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, "run_bench.py", *map(str, arguments)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heed,
    )
