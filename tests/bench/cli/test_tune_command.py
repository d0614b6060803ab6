"""The command that searches: processes that share a search, and what it leaves and tells."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from optuna.storages import RDBStorage
from sqlalchemy.exc import ArgumentError

from analysis.trials import load_trials
from bench.grid.claims import GRID_CLAIM, is_claimed
from bench.search import storage, tuning
from tests.bench.conftest import Here, started


def where(folder: Path) -> tuple[object, ...]:
    return ("--task", "signal_game", "--out", folder / "tune", "--profile", folder / "tiny.toml")


def tune(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    return started("tune", *where(folder), *arguments)


def stored(folder: Path) -> int:
    return len([*folder.rglob("*.parquet")])


def test_two_processes_share_a_search_and_either_may_die(
    here: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is killed, a worker of the other too; the same command brings back what was lost."""
    tiny.write_text(tiny.read_text().replace("epochs = 1", "epochs = 4"))
    arguments = ("--estimators", "sfe,dense", "--trials", 5, "--pruner", "none")
    killed, other = tune(tmp_path, *arguments, "--jobs", 1), tune(tmp_path, *arguments, "--jobs", 2)
    deadline = time.monotonic() + 120
    while stored(tmp_path) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    workers = subprocess.run(
        ["pgrep", "-P", str(other.pid), "-f", "LokyProcess"], capture_output=True, text=True
    )
    for worker in workers.stdout.split()[:1]:
        os.kill(int(worker), signal.SIGKILL)
    _, errors = other.communicate(timeout=120)
    assert "Traceback" not in errors
    monkeypatch.setattr("analysis.search.write_search_report", lambda folder: [folder])
    last = here("tune", *where(tmp_path), *arguments, "--jobs", 1)
    assert last.returncode == 0, last.stderr
    trials = load_trials(tmp_path / "tune")
    assert trials.groupby("estimator")["place"].apply(sorted).tolist() == [[*range(5)]] * 2
    assert set(trials["state"]) == {"complete"}
    assert "best.toml" in last.stdout


def test_a_grid_with_what_was_found(here: Here, tiny: Path, tmp_path: Path) -> None:
    first = tune(tmp_path, "--estimator", "sfe-ma", "--trials", 2, "--jobs", 1)
    written, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors
    assert "sfe-ma trial 1" in written
    for name in ("search.md", "figures/history.pdf", "figures/slices-signal_game.png"):
        assert (tmp_path / "tune" / name).stat().st_size > 0
    out = tmp_path / "after"
    best = tmp_path / "tune" / "best.toml"
    names = ("--tasks", "signal_game", "--estimators", "sfe,sfe-ma", "--seeds", 1)
    done = here(*names, "--profile", best, "--out", out)
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(out / "cells").drop_duplicates("key").set_index("estimator")
    settings = {name: json.loads(table.loc[name, "hyperparameters"]) for name in table.index}
    assert "found" not in settings["sfe"]
    assert settings["sfe-ma"]["found"]["study"] == "tune:signal_game/sfe-ma"
    assert "training.learning_rate" in settings["sfe-ma"]["found"]["values"]
    assert pq.read_table(tmp_path / "tune" / "trials.parquet").num_rows == 2


def test_a_search_whose_trials_others_run_says_that_none_has_ended(
    here: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "run_search", lambda *arguments: None)
    arguments = ("tune", "--task", "signal_game", "--estimator", "sfe", "--trials", 1)
    arguments += ("--jobs", 1, "--profile", tiny, "--out", tmp_path / "tune")
    done = here(*arguments)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "no trial has ended yet: there is nothing to report\n"
    end = {"event": "end", "counts": {}, "report": None, "best": None}
    assert json.loads(here(*arguments, "--json").stdout) == end
    report = here("report", tmp_path / "tune")
    assert report.returncode == 2
    assert report.stderr.endswith("/tune holds a search of which no trial has ended yet\n")


def test_a_search_without_a_value_names_no_best_settings(
    here: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.search.write_search_report", lambda folder: [folder / "x.md"])
    out = tmp_path / "tune"
    arguments = ("tune", "--task", "signal_game", "--estimator", "sfe", "--trials", 1)
    arguments += ("--jobs", 1, "--profile", tiny, "--out", out, "--time-limit", 1e-6)
    done = here(*arguments)
    assert (done.returncode, done.stderr) == (1, "")
    assert "pruned: timeout: took more than" in done.stdout
    assert "the best settings" not in done.stdout
    assert not (out / "best.toml").exists()
    end = {"event": "end", "counts": {"pruned": 1}, "report": str(out / "x.md"), "best": None}
    assert json.loads(here(*arguments, "--json").stdout) == end


def test_no_password_of_a_storage_goes_into_a_file_or_to_the_terminal(
    here: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither that of the address nor what an error says of it."""
    address, real = "postgresql://me:s3cret@nowhere/name?password=s3cret", storage._database
    found: list[str] = []

    def database(given: str) -> RDBStorage:
        found.append(given)
        return real(f"sqlite:///{tmp_path}/studies.db")

    monkeypatch.setattr(storage, "_database", database)
    for draw in ("save_row", "_save_slices"):
        monkeypatch.setattr(f"analysis.search.{draw}", lambda *_: tmp_path / "none.png")
    out = tmp_path / "tune"
    arguments = ("tune", "--task", "signal_game", "--estimator", "sfe", "--trials", 1)
    arguments += ("--jobs", 1, "--profile", tiny, "--out", out)
    done = here(*arguments, "--storage", address)
    assert done.returncode == 0, done.stderr
    assert set(found) == {address}
    status = here("status", out)
    texts = [done.stdout, done.stderr, status.stdout, status.stderr]
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        rows = pq.ParquetFile(path).read() if path.suffix == ".parquet" else None
        texts.append(path.read_bytes().decode("latin1") if rows is None else str(rows.to_pylist()))
    assert not [text for text in texts if "s3cret" in text]
    assert "'postgresql://me:***@nowhere/name?***'" in (out / "search.md").read_text()

    def refused(given: str) -> RDBStorage:
        raise ArgumentError(f"{given} is wrong")

    monkeypatch.setattr(storage, "_database", refused)
    for words in (
        ("--storage", address),
        ("--storage", f"{address} "),
        ("--pruner", address),
        (address,),
    ):
        wrong = here(*arguments, *words)
        assert wrong.returncode == 2
        assert wrong.stderr.startswith("error: ")
        assert "s3cret" not in wrong.stderr


def test_a_search_tells_a_machine_or_no_more_than_its_end(
    here: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "search.md"

    def write(folder: Path) -> list[Path]:
        assert is_claimed(folder / "running" / GRID_CLAIM)  # other processes may be at its end too
        return [report]

    monkeypatch.setattr("analysis.search.write_search_report", write)
    out = tmp_path / "tune"
    arguments = ("tune", "--task", "signal_game", "--estimator", "sfe", "--trials", 2)
    arguments += ("--jobs", 1, "--profile", tiny, "--out", out)
    done = here(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    *trials, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["event"], one["trial"], one["state"]) for one in trials] == [
        ("trial", 0, "complete"), ("trial", 1, "complete"),
    ]  # fmt: skip
    assert all(len(one["values"]) == 1 and one["parameters"] for one in trials)
    assert end == {
        "event": "end", "counts": {"complete": 2}, "report": str(report),
        "best": str(out / "best.toml"),
    }  # fmt: skip
    assert here(*arguments, "--quiet").stdout == (
        f"tables and figures: {report}\nthe best settings: --profile {out / 'best.toml'}\n"
    )
    shown = here("status", out)
    assert shown.returncode == 0
    assert f"{out}: 2 trials' cells" in shown.stdout
