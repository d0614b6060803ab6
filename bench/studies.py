"""Optuna studies that several processes share, of which any may die at any time.

A study has numbered places, which `claim` hands out. A place becomes a trial once: whoever takes it
out of Optuna's queue has it, and a place whose trial's process died goes back into the queue.
Optuna's numbers order the trials for all processes alike: should two of them queue one place at the
same moment, the trial with the lower number stands and the other is withdrawn.
"""

import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from analysis.scores import LESS_IS_BETTER
from analysis.stored import JOURNAL
from bench.errors import UserError

ATTEMPTS = 3
"""Processes that may die of a place before it counts as failed."""

BEAT_SECONDS = 60.0
SILENT_SECONDS = 600.0
"""A trial that nothing was heard of for so long is dead, on whatever machine it was."""

OPENINGS = 5
"""Tries to open a database whose tables another process is making."""

HOPELESS = 5
"""A study whose first so many trials have all failed is given up."""

Direction = Literal["minimize", "maximize"]

_ABOUT = "about"
_LOST = "lost "


@dataclass(frozen=True)
class Budget:
    """How long a study goes on: so many trials, or so many seconds of training."""

    trials: int | None
    seconds: float | None


def open_storage(address: str | None, results: Path) -> BaseStorage:
    """The storage at an address, or the journal in the results folder.

    Raises:
        UserError: it can't be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if address is None:
        return JournalStorage(JournalFileBackend(str(results / JOURNAL)))
    for left in reversed(range(OPENINGS)):
        try:
            return _database(address)
        except Exception as error:  # SQLAlchemy's, that of a missing driver, the server's
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            making = "already exists" in reason or isinstance(error, IntegrityError)
            if left == 0 or not making:
                raise UserError(f"--storage {_without_password(address)}: {reason}") from error
            time.sleep(1)  # another process is making its tables
    raise AssertionError


class SharedStudy:
    """A study in a storage, made if it is not there.

    Args:
        storage: where it is.
        name: of the study.
        about: what it is for, as JSON can hold it, its "objectives" among that.
        pruner: decides which trials end early.
    Raises:
        UserError: the stored study is for something else.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        about: dict[str, Any],
        pruner: BasePruner | None = None,
    ) -> None:
        try:
            self.study = optuna.create_study(
                storage=storage, study_name=name, directions=directions_of(about), pruner=pruner
            )
        except DuplicatedStudyError:
            self.study = optuna.load_study(study_name=name, storage=storage, pruner=pruner)
        self.about = about
        empty = not self.trials()  # looked at first: who makes a study sets what it is about first
        stored = self.study.user_attrs.get(_ABOUT)
        if stored is None and empty:
            self.study.set_user_attr(_ABOUT, about)
        elif stored is None:
            raise UserError(f"study {name} is stored, and no search of ours: give another --out")
        else:
            self.about = stored
            self.check(about)

    @classmethod
    def stored(cls, storage: BaseStorage, prefix: str) -> "list[SharedStudy]":
        """The studies in a storage whose names begin so, to read."""
        found = []
        for summary in optuna.get_all_study_summaries(storage, include_best_trial=False):
            about = summary.user_attrs.get(_ABOUT)
            if summary.study_name.startswith(prefix) and about is not None:
                found.append(cls(storage, summary.study_name, about))
        return found

    def check(self, about: dict[str, Any]) -> None:
        """Refuse what the study is not about.

        Args:
            about: parts of what it should be about.
        Raises:
            UserError: names the first part that differs.
        """
        stored = {name: self.about.get(name) for name in about}
        if stored != about:
            change, name = _first_change(stored, about), self.study.study_name
            raise UserError(f"study {name} was begun with another {change}: give another --out")

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials, or those in some states, by number."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def counted(self) -> list[FrozenTrial]:
        """The trials that are over and fill their place: complete, pruned, failed of themselves."""
        lost = self._lost()
        return [
            trial
            for trial in self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
            if trial.state != TrialState.FAIL or trial.number not in lost
        ]

    def claim(self, budget: Budget, start: dict[str, Any], run: str) -> Trial | None:
        """The next trial to run; None if there is none, or none that is not run by others.

        Args:
            budget: how many there are to be.
            start: the parameters of place 0.
            run: names this run, to withdraw its trials if it is stopped.
        """
        self.bury()
        while self._wants_more(budget):
            if not self._queue(budget, start):
                return None
            trial = self.study.ask()
            trial.set_user_attr("worker", {"host": socket.gethostname(), "pid": os.getpid()})
            trial.set_user_attr("run", run)
            trial.set_user_attr("beat", time.time())
            if self._stands(trial.number):
                return trial
            self._lose(trial.number, "withdrawn")
        return None

    def bury(self) -> int:
        """End trials whose process has died, so that their places are free; how many there were."""
        return sum(
            self._lose(trial.number, "dead")
            for trial in self.trials(TrialState.RUNNING)
            if _is_dead(trial)
        )

    def withdraw(self, run: str) -> None:
        """End the trials that a run has not finished, as if they had never begun."""
        for trial in self.trials(TrialState.RUNNING):
            if trial.user_attrs.get("run") == run:
                self._lose(trial.number, "withdrawn")

    def _wants_more(self, budget: Budget) -> bool:
        """Whether any place is left to take."""
        counted = self.counted()
        if len(counted) >= HOPELESS and all(t.state == TrialState.FAIL for t in counted):
            return False
        if budget.trials is not None:
            return len(counted) + len(self.trials(TrialState.RUNNING)) < budget.trials
        assert budget.seconds is not None
        return sum(t.user_attrs.get("train_seconds", 0.0) for t in counted) < budget.seconds

    def _queue(self, budget: Budget, start: dict[str, Any]) -> bool:
        """Queue the lowest place that is free, unless one waits already; whether there is any.

        One at a time, so that what was stopped comes before what is to follow it. Another process
        may take what waits before we do: then the next turn queues the next place.
        """
        alive = self.trials(TrialState.WAITING, TrialState.RUNNING)
        if any(trial.state == TrialState.WAITING for trial in alive):
            return True
        held = {place(trial) for trial in alive + self.counted()}
        lost = self._lost()
        dead = [place(t) for t in self.trials(TrialState.FAIL) if lost.get(t.number) == "dead"]
        places = itertools.count() if budget.trials is None else range(budget.trials)
        free = (n for n in places if n not in held and dead.count(n) < ATTEMPTS)
        number = next(free, None)
        if number is None:
            return False
        self.study.enqueue_trial(start if number == 0 else {}, user_attrs={"place": number})
        return True

    def _stands(self, number: int) -> bool:
        """Whether a trial is the first for its place, of those that are not lost."""
        trials, lost = self.trials(), self._lost()
        own = place(trials[number])
        return own >= 0 and not any(
            place(t) == own and t.number < number and t.number not in lost for t in trials
        )

    def _lose(self, number: int, how: Literal["dead", "withdrawn"]) -> bool:
        """End a trial that came to nothing; False if another process had ended it."""
        self.study.set_user_attr(f"{_LOST}{number}", how)
        try:
            self.study.tell(number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):
            return False
        return True

    def _lost(self) -> dict[int, str]:
        """How trials were lost that came to nothing, by number."""
        return {
            int(name.removeprefix(_LOST)): how
            for name, how in self.study.user_attrs.items()
            if name.startswith(_LOST)
        }


def place(trial: FrozenTrial | Trial) -> int:
    """The place of a trial in its study; -1 for one that has none."""
    return int(trial.user_attrs.get("place", -1))


def _database(address: str) -> RDBStorage:
    if not address.startswith("sqlite"):
        return RDBStorage(address, engine_kwargs={"pool_pre_ping": True})
    # By default SQLite's driver begins a transaction at its first write: two processes could read
    # that a trial waits, and both take it. So the driver begins none, and each begins by a lock.
    waiting = {"timeout": 60, "isolation_level": None}
    storage = RDBStorage(address, engine_kwargs={"connect_args": waiting})
    event.listen(storage.engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN IMMEDIATE"))
    return storage


def directions_of(about: dict[str, Any]) -> list[Direction]:
    """For each objective of a study, which way is better."""
    names = about["objectives"]
    return ["minimize" if name in LESS_IS_BETTER else "maximize" for name in names]


@contextmanager
def beating(trial: Trial) -> Iterator[None]:
    """Let others see, every minute, that a trial is alive."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_SECONDS):
            with suppress(Exception):  # the storage is away for a moment: the next beat will do
                trial.set_user_attr("beat", time.time())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _is_dead(trial: FrozenTrial) -> bool:
    worker = trial.user_attrs.get("worker")
    if worker is not None and worker["host"] == socket.gethostname():
        try:
            os.kill(worker["pid"], 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's process, which is there
            pass
    assert trial.datetime_start is not None
    heard = trial.user_attrs.get("beat", trial.datetime_start.timestamp())
    return time.time() - float(heard) > SILENT_SECONDS


def _first_change(stored: dict[str, Any], about: dict[str, Any]) -> str:
    """The first part that differs, in words."""
    name = next(name for name in [*about, *stored] if stored.get(name) != about.get(name))
    old, new = stored.get(name), about.get(name)
    if isinstance(old, dict) and isinstance(new, dict):
        return _first_change(old, new)
    return f"{name} (stored: {old}, now: {new})"


def _without_password(address: str) -> str:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(address).render_as_string(hide_password=True)
    except ArgumentError:
        return address
