"""Cells on the workers of a Dask cluster, which is a real one of processes on this machine."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis.load import load_results
from bench.cells.cell import Cell, Planned, plan
from bench.cells.examples import examples_path
from bench.errors import UserError
from bench.grid import remote
from bench.grid.grid import run_cells
from bench.grid.limits import Limits
from bench.grid.runner import NOT_BEGUN, Execution, Outcome, progress_file
from bench.profiles.profile import Profile, load_profile
from bench.results.store import cell_path
from estimators.registry import all_estimators
from tasks.registry import all_tasks
from tests.bench.conftest import Here, cell_of

dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster() -> Iterator["distributed.LocalCluster"]:
    """Two worker processes with a thread each."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as found:
        yield found


@pytest.fixture
def execution(tmp_path: Path, cluster: "distributed.LocalCluster") -> Execution:
    return Execution(
        tmp_path / "results", "tiny", None, "cpu", jobs=1, command="test",
        scheduler=cluster.scheduler_address,
    )  # fmt: skip


def test_results_come_back_and_are_those_of_this_machine(
    profile: Profile, execution: Execution
) -> None:
    """Rows, examples and failures, from workers that know nothing of the results folder."""
    planned = plan(["ssvae"], ["sfe", "none", "sparsemap-budget"], 1, profile)
    cells = {item.cell.estimator: item.cell for item in planned}
    outcomes = {o.cell.estimator: o.status for o in run_cells(planned, execution)}
    assert outcomes == {"sfe": "ok", "none": "ok", "sparsemap-budget": "skipped"}
    assert examples_path(execution.results, cells["sfe"]).is_file()
    assert not (execution.results / "running").exists()
    again = run_cells(planned, execution)
    assert {o.status for o in again} == {"stored", "skipped"}

    here = replace(execution, results=execution.results / "here", scheduler=None)
    run_cells(planned, here)
    index = ["estimator", "step", "split"]
    columns = ["status", "loss", "accuracy", "elbo", "gradient_norm", "decoder_calls"]
    there, local = (
        load_results(folder).set_index(index)[columns].sort_index()
        for folder in (execution.results, here.results)
    )
    pd.testing.assert_frame_equal(there, local)


def test_a_worker_that_is_killed_costs_nothing(
    tiny: Path, execution: Execution, cluster: "distributed.LocalCluster"
) -> None:
    tiny.write_text(tiny.read_text().replace("epochs = 1", "epochs = 5"))
    profile = load_profile(str(tiny), [*all_tasks()], [*all_estimators()])
    planned = plan(["bitvector"], ["sfe", "nvil", "rloo"], 2, profile)
    killed: list[int] = []

    def kill_once(outcome: Outcome) -> None:
        with distributed.Client(cluster, set_as_default=False) as client:
            busy = [address for address, tasks in client.processing().items() if tasks]
            if busy and not killed:
                killed.extend(client.run(os.getpid, workers=busy[:1]).values())
                os.kill(killed[0], signal.SIGKILL)

    outcomes = run_cells(planned, execution, kill_once)
    assert len(killed) == 1
    assert sorted(o.cell.name for o in outcomes) == sorted(item.cell.name for item in planned)
    assert {o.status for o in outcomes} == {"ok"}
    assert set(load_results(execution.results)["status"]) == {"ok"}


def test_a_failure_there_is_a_row_here(profile: Profile, execution: Execution) -> None:
    """Here a data set that the workers' machine lacks."""
    cell = cell_of(profile, "signal_game", "none")
    elsewhere = replace(cell, task_settings=cell.task_settings | {"dataset": "features"})
    (outcome,) = run_cells([Planned(elsewhere, None)], execution)
    assert outcome.status == "failed"
    assert "DataError: features are not public" in str(outcome.reason)
    assert load_results(execution.results)["reason"].tolist() == [outcome.reason]
    assert outcome.traceback


def test_what_no_worker_takes_up_in_the_grid_s_time_is_left(
    profile: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = cell_of(profile, "ssvae", "none")
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        limits = Limits(ends=time.time() + 1, grace=0.1)
        execution = Execution(
            tmp_path, "tiny", None, "cpu", jobs=1, command="test",
            scheduler=empty.scheduler_address, limits=limits,
        )  # fmt: skip
        (outcome,) = run_cells([Planned(cell, None)], execution)
        told = f"--scheduler {empty.scheduler_address} has no workers yet: waiting for one\n"
    assert capsys.readouterr().err == told
    assert (outcome.status, outcome.reason) == ("timeout", NOT_BEGUN)
    assert not cell_path(tmp_path, cell).exists()


def test_a_scheduler_that_goes_away_ends_the_run_in_a_line(
    profile: Profile, tmp_path: Path
) -> None:
    cell = cell_of(profile, "ssvae", "none")
    empty = distributed.LocalCluster(n_workers=0, dashboard_address=":0")
    execution = Execution(
        tmp_path, "tiny", None, "cpu", jobs=1, command="test", scheduler=empty.scheduler_address
    )
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(run_cells, [Planned(cell, None)], execution)
        while not progress_file(tmp_path, cell).exists():
            time.sleep(0.05)
        empty.close()
        with pytest.raises(UserError, match="run the same command to go on"):
            run.result(60)


def die(cell: Cell, execution: Execution) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_cell_that_kills_its_workers_is_a_failed_row(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "run_away", die)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0"
        ) as frail,
    ):
        execution = Execution(
            tmp_path, "tiny", None, "cpu", jobs=1, command="test",
            scheduler=frail.scheduler_address,
        )  # fmt: skip
        (outcome,) = run_cells([Planned(cell_of(profile, "ssvae", "none"), None)], execution)
    assert outcome.status == "failed"
    assert "its workers were killed" in str(outcome.reason)
    assert load_results(tmp_path)["reason"].tolist() == [outcome.reason]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--executor", "dask"), "--executor dask and --scheduler ADDRESS go together"),
        (("--scheduler", "tcp://127.0.0.1:1"), "--executor dask and --scheduler ADDRESS go"),
        (("--executor", "dask", "--scheduler", "tcp://127.0.0.1:1"), "--scheduler tcp://127.0.0.1"),
    ],
)
def test_mistakes_are_told_in_a_line(
    here: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], words: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("bench.grid.remote.CONNECT_SECONDS", 1)
    grid = ("--tasks", "ssvae", "--estimators", "none", "--seeds", 1, "--profile", tiny)
    done = here(*grid, "--out", tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("address", ["nonsense", "tcp://host", "foo://host:1", "tcp://host:port"])
def test_what_is_no_address_is_told_before_anything_is_written(
    here: Here, tmp_path: Path, address: str
) -> None:
    done = here("--executor", "dask", "--scheduler", address, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --scheduler {address}: ")
    assert done.stderr.endswith(": give one as tcp://HOST:8786\n")
    assert done.stderr.count("\n") == 1
    assert not done.stdout
    assert not (tmp_path / "out").exists()


def test_workers_without_the_benchmark_are_told(
    cluster: "distributed.LocalCluster", monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*arguments: object) -> None:
        raise ModuleNotFoundError("No module named 'bench'")

    monkeypatch.setattr(distributed.Client, "run", lacking)
    said = pytest.raises(UserError, match="its workers lack the benchmark: install it there")
    with said, remote.connected(cluster.scheduler_address):
        pass
