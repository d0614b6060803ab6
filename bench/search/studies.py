"""Optuna studies that several processes share, of which any may die at any time.

A study has numbered places, which `claim` hands out, and each becomes a trial once. A place is
taken by adding a trial that names it, and who runs it, in one write: a process may die at any
moment, and its place is free again. Optuna's numbers order the trials for all processes alike:
should two take one place at the same time, the lower number stands and the other is withdrawn.
"""

import itertools
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from analysis.scores import LESS_IS_BETTER
from bench.errors import UserError

ATTEMPTS = 3
"""Processes that may die of a place before it counts as failed."""

BEAT_SECONDS = 60.0
SILENT_SECONDS = 600.0
"""A trial that nothing was heard of for so long is dead, on whatever machine it was."""

HOPELESS = 5
"""A study whose first so many trials have all failed is given up."""

Start = Mapping[str, tuple[BaseDistribution, Any]]
"""Parameters by name: each what it is one of, and its value."""

Direction = Literal["minimize", "maximize"]

_ABOUT = "about"
_LOST = "lost "


@dataclass(frozen=True)
class Budget:
    """How long a study goes on: so many trials, or so many seconds of training."""

    trials: int | None
    seconds: float | None


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
        self._storage = storage
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
        ended = self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        lost = self._lost()  # looked at last: a trial is called lost before it ends
        return [t for t in ended if t.state != TrialState.FAIL or t.number not in lost]

    def claim(self, budget: Budget, start: Start, run: str) -> Trial | None:
        """The next trial to run; None if there is none, or none that is not run by others.

        Args:
            budget: how many there are to be.
            start: the parameters of place 0.
            run: names this run, to withdraw its trials if it is stopped.
        """
        while True:
            self.bury()
            number = self._free_place(budget)
            if number is None:
                return None
            trial = self._take(number, start if number == 0 else {}, run)
            if self._stands(trial):
                return trial
            self._lose(trial.number, "withdrawn")

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

    def _free_place(self, budget: Budget) -> int | None:
        """The lowest place that is free: what was stopped comes before what is to follow it.

        None if the budget is spent, or others run what is left of it.
        """
        running, counted = self.trials(TrialState.RUNNING), self.counted()
        if len(counted) >= HOPELESS and all(t.state == TrialState.FAIL for t in counted):
            return None
        places: Iterable[int]
        if budget.trials is not None:
            places = range(budget.trials)
        else:
            assert budget.seconds is not None
            spent = sum(trial.user_attrs.get("train_seconds", 0.0) for trial in counted)
            places = itertools.count() if spent < budget.seconds else ()
        held = {place(trial) for trial in running + counted}
        failed, lost = self.trials(TrialState.FAIL), self._lost()
        dead = [place(trial) for trial in failed if lost.get(trial.number) == "dead"]
        return next((n for n in places if n not in held and dead.count(n) < ATTEMPTS), None)

    def _take(self, number: int, parameters: Start, run: str) -> Trial:
        """Add a trial for a place, with all that is to be known should its process die at once."""
        added = create_trial(
            state=TrialState.RUNNING,
            params={name: value for name, (_, value) in parameters.items()},
            distributions={name: among for name, (among, _) in parameters.items()},
            user_attrs={
                "place": number,
                "worker": {"host": socket.gethostname(), "pid": os.getpid()},
                "run": run,
                "beat": time.time(),
            },
        )
        study = self._storage.get_study_id_from_name(self.study.study_name)
        return Trial(self.study, self._storage.create_new_trial(study, added))

    def _stands(self, trial: Trial) -> bool:
        """Whether a trial is the first for its place, of those that are not lost."""
        others = [*self.trials(TrialState.RUNNING), *self.counted()]
        return not any(place(o) == place(trial) and o.number < trial.number for o in others)

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
