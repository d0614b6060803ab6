"""Studies that processes share: every place becomes one trial, whatever dies."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from bench.errors import UserError
from bench.search import studies
from bench.search.storage import open_storage
from bench.search.studies import Budget, SharedStudy, place

ABOUT = {"objectives": ["elbo"], "training": {"epochs": 3}}
FIVE = Budget(5, None)
START = {"x": (FloatDistribution(0, 1), 0.5)}


def shared(folder: Path, about: dict[str, Any] = ABOUT) -> SharedStudy:
    return SharedStudy(open_storage(None, folder), "test:a/b", about)


def take(study: SharedStudy, budget: Budget = FIVE) -> optuna.Trial:
    trial = study.claim(budget, START, "run")
    assert trial is not None
    return trial


def test_places_are_handed_out_once_and_in_order(tmp_path: Path) -> None:
    study = shared(tmp_path)
    taken = [take(study) for _ in range(5)]
    assert [place(trial) for trial in taken] == [0, 1, 2, 3, 4]
    assert taken[0].params == {"x": 0.5}
    assert taken[0].suggest_float("x", 0, 1) == 0.5
    assert taken[1].params == {}
    assert study.claim(FIVE, {}, "run") is None
    for trial in taken:
        study.study.tell(trial, 1.0)
    assert study.claim(FIVE, {}, "run") is None
    assert place(take(study, Budget(6, None))) == 5


def test_pruned_and_failed_trials_count(tmp_path: Path) -> None:
    study = shared(tmp_path)
    study.study.tell(take(study), state=TrialState.PRUNED)
    study.study.tell(take(study), state=TrialState.FAIL)
    assert len(study.counted()) == 2
    assert [place(take(study)) for _ in range(3)] == [2, 3, 4]


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_place_of_a_dead_process_is_taken_again(tmp_path: Path) -> None:
    study = shared(tmp_path)
    alive, dead = take(study), take(study)
    dead.set_user_attr("worker", {"host": socket.gethostname(), "pid": dead_process()})
    assert [place(take(study)) for _ in range(4)] == [1, 2, 3, 4]
    assert study.claim(FIVE, {}, "run") is None
    assert study.counted() == []
    assert study.study.trials[alive.number].state == TrialState.RUNNING
    assert study.study.trials[dead.number].state == TrialState.FAIL


def test_a_place_that_kills_every_process_is_given_up(tmp_path: Path) -> None:
    study, one = shared(tmp_path), Budget(1, None)
    for _ in range(studies.ATTEMPTS):
        trial = take(study, one)
        assert place(trial) == 0
        trial.set_user_attr("worker", {"host": socket.gethostname(), "pid": dead_process()})
    assert study.claim(one, {}, "run") is None


def test_another_machines_trial_is_dead_when_it_is_silent(tmp_path: Path) -> None:
    study = shared(tmp_path)
    trial = take(study)
    trial.set_user_attr("worker", {"host": "elsewhere", "pid": dead_process()})
    assert study.bury() == 0
    trial.set_user_attr("beat", time.time() - studies.SILENT_SECONDS - 1)
    assert study.bury() == 1
    assert study.bury() == 0
    with pytest.raises(ValueError, match="FAIL"):  # it comes back: its result comes too late
        study.study.tell(trial, 1.0)


def test_a_beat_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "BEAT_SECONDS", 0.01)
    study = shared(tmp_path)
    trial = take(study)
    trial.set_user_attr("beat", 0.0)
    with studies.beating(trial):
        time.sleep(0.3)
    assert study.study.trials[0].user_attrs["beat"] > time.time() - 10


class Killed(BaseException):
    """What nothing catches, in place of SIGKILL."""


@pytest.mark.parametrize("written", [False, True])
def test_a_process_may_die_at_any_of_its_writes(
    written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From making the study to the end of its first trial: no place is lost, nor run twice."""
    append, gone = JournalFileBackend.append_logs, dead_process()
    deaths = 0
    while True:
        folder = tmp_path / str(deaths)
        folder.mkdir()
        left = deaths

        def write(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
            nonlocal left
            if left == 0 and not written:
                raise Killed
            append(backend, logs)
            if left == 0:
                raise Killed
            left -= 1

        with monkeypatch.context() as patch:
            patch.setattr(JournalFileBackend, "append_logs", write)
            patch.setattr(studies.os, "getpid", lambda: gone)
            try:
                dying = shared(folder)
                dying.study.tell(take(dying), 1.0)
            except Killed:
                ended = False
            else:
                ended = True
        study = shared(folder)
        stored = {place(trial) for trial in study.counted()}
        assert stored <= {0}
        rest = [place(take(study)) for _ in range(5 - len(stored))]
        assert [*stored, *rest] == [0, 1, 2, 3, 4]
        assert study.claim(FIVE, {}, "run") is None
        if ended:
            break
        deaths += 1
    assert deaths >= 4  # the study, what it is about, its trial, the trial's end


def meanwhile(study: SharedStudy, act: Callable[[], object], patch: pytest.MonkeyPatch) -> None:
    """Let something happen once, after a claim has found a place free and before it takes it."""
    find, left = study._free_place, [act]

    def find_and_wait(budget: Budget) -> int | None:
        number = find(budget)
        if left:
            left.pop()()
        return number

    patch.setattr(study, "_free_place", find_and_wait)


@pytest.mark.parametrize("budget", [FIVE, Budget(None, 10.0)])
def test_who_is_too_late_for_a_place_takes_the_next(
    budget: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, other = shared(tmp_path), shared(tmp_path)
    meanwhile(study, lambda: take(other, budget), monkeypatch)
    assert place(take(study, budget)) == 1
    trials = [(place(trial), trial.state) for trial in study.study.trials]
    assert trials == [(0, TrialState.RUNNING), (0, TrialState.FAIL), (1, TrialState.RUNNING)]
    assert study.counted() == []


@pytest.mark.parametrize("ended", [False, True])
def test_who_is_too_late_for_the_last_place_takes_none(
    ended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, other, one = shared(tmp_path), shared(tmp_path), Budget(1, None)

    def other_takes() -> None:
        trial = take(other, one)
        if ended:
            other.study.tell(trial, 1.0)

    meanwhile(study, other_takes, monkeypatch)
    assert study.claim(one, {}, "run") is None
    first, second = study.study.trials
    assert first.state == (TrialState.COMPLETE if ended else TrialState.RUNNING)
    assert second.state == TrialState.FAIL


def test_who_is_first_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, other = shared(tmp_path), shared(tmp_path)
    stands = study._stands
    monkeypatch.setattr(
        study, "_stands", lambda trial: stands(trial) if other._take(0, {}, "late") else None
    )
    assert take(study).number == 0


def test_a_place_is_not_left_to_who_dies_of_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes the last place first, and is killed before this one looks again."""
    study, other, one = shared(tmp_path), shared(tmp_path), Budget(1, None)
    worker = {"host": socket.gethostname(), "pid": dead_process()}
    meanwhile(study, lambda: take(other, one).set_user_attr("worker", worker), monkeypatch)
    trial = take(study, one)
    assert place(trial) == 0
    states = [trial.state for trial in study.study.trials]
    assert states == [TrialState.FAIL, TrialState.FAIL, TrialState.RUNNING]


def test_what_a_stopped_run_had_is_taken_again(tmp_path: Path) -> None:
    study = shared(tmp_path)
    study.study.tell(take(study), 1.0)
    take(study)
    other = study.claim(FIVE, {}, "another run")
    assert other is not None
    study.withdraw("run")
    assert [place(take(study)) for _ in range(3)] == [1, 3, 4]  # what is stopped is not put off
    assert study.study.trials[other.number].state == TrialState.RUNNING


def test_a_budget_of_seconds(tmp_path: Path) -> None:
    study, budget = shared(tmp_path), Budget(None, 10.0)
    for _ in range(3):
        trial = take(study, budget)
        trial.set_user_attr("train_seconds", 4.0)
        study.study.tell(trial, 1.0)
    assert study.claim(budget, {}, "run") is None
    assert [place(trial) for trial in study.counted()] == [0, 1, 2]


def test_a_hopeless_study_is_given_up(tmp_path: Path) -> None:
    study, many = shared(tmp_path), Budget(100, None)
    for _ in range(studies.HOPELESS):
        study.study.tell(take(study, many), state=TrialState.FAIL)
    assert study.claim(many, {}, "run") is None


def test_another_study_of_the_name_is_refused(tmp_path: Path) -> None:
    take(shared(tmp_path))
    shared(tmp_path)
    with pytest.raises(UserError, match=r"begun with another epochs \(stored: 3, now: 4\)"):
        shared(tmp_path, ABOUT | {"training": {"epochs": 4}})
    foreign = optuna.create_study(storage=open_storage(None, tmp_path), study_name="foreign")
    foreign.ask()
    with pytest.raises(UserError, match="no search of ours"):
        SharedStudy(open_storage(None, tmp_path), "foreign", ABOUT)


WORKER = """
import sys, time
from pathlib import Path
from bench.search.studies import Budget, SharedStudy, place
from bench.search.storage import open_storage
folder = Path(sys.argv[2])

def wait_for_all(what):
    (folder / f"{what} {sys.argv[3]}").touch()
    while len([*folder.glob(f"{what} *")]) < 3:
        time.sleep(0.01)

wait_for_all("ready")
storage = open_storage(sys.argv[1] or None, folder)
study = SharedStudy(storage, "race", {"objectives": ["elbo"]})
while (trial := study.claim(Budget(12, None), {}, sys.argv[3])) is not None:
    wait_for_all("has one")  # else a busy machine's fastest could take all
    trial.suggest_float("x", 0, 1)
    time.sleep(0.1)
    study.study.tell(trial, place(trial))
"""


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a database on a server of our own, which takes no network connections."""
    found = [*map(Path, filter(None, [shutil.which("initdb")]))]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL server is installed")
    pytest.importorskip("psycopg")
    programs = found[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path has to be short
    user = None
    if os.geteuid() == 0:  # whom PostgreSQL refuses to run as
        user = "nobody"
        shutil.chown(folder, user)
    data = folder / "data"

    def run(*command: object) -> None:
        subprocess.run([str(part) for part in command], check=True, user=user, capture_output=True)

    run(programs / "initdb", "-D", data, "-U", "bench", "-A", "trust", "--no-sync")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    run(programs / "pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log", "start")
    yield f"postgresql+psycopg://bench@/postgres?host={folder}"
    run(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["journal", "sqlite", "postgresql"])
def test_processes_that_start_together_double_nothing(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address = ""
    if kind == "sqlite":
        address = f"sqlite:///{tmp_path}/studies.db"
    elif kind == "postgresql":
        address = request.getfixturevalue("postgresql")
    processes = [
        subprocess.Popen([sys.executable, "-c", WORKER, address, str(tmp_path), str(number)])
        for number in range(3)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    study = SharedStudy(open_storage(address or None, tmp_path), "race", {"objectives": ["elbo"]})
    assert sorted(place(trial) for trial in study.counted()) == list(range(12))
    assert {trial.values[0] for trial in study.counted()} == set(map(float, range(12)))
    assert len({trial.user_attrs["worker"]["pid"] for trial in study.counted()}) == 3
