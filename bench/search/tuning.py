"""Search of hyper-parameters: one study for each task and estimator, each with an equal budget.

A trial is a cell like any other, at a seed that is for searching alone: it is run and stored by the
runner, and judged by validation data.
"""

import itertools
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from optuna.distributions import distribution_to_json
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState
from pydantic import ValidationError

from analysis.stored import rows_of_cell
from bench.cells.cell import FIRST_TUNING_SEED, Cell, cell_latent
from bench.cells.numerics import NUMERICS
from bench.errors import UserError, invalid
from bench.grid.loops import compile_before
from bench.grid.processes import Call, side_by_side
from bench.grid.runner import Execution, Outcome, PrunedError, Watch, run_cell
from bench.profiles.profile import TrainingSettings, with_named
from bench.results.store import cell_path, last_row, stored_status
from bench.search.space import Space, holds, starting_point, suggest
from bench.search.storage import database_errors, open_storage
from bench.search.studies import Budget, SharedStudy, Start, beating, place
from estimators.registry import all_estimators
from tasks.registry import all_tasks
from tasks.streams import derive_seed

SCHEMA = 1
"""Version of what a study holds."""

COMPARED = ("numerics", "objectives", "data", "task settings", "evaluation")
"""What the studies of a task in one folder have in common, as its report compares their values."""

PATIENCE = 1 / 3
"""Share of a training, the warm start aside, in which no trial is pruned."""

SamplerName = Literal["tpe", "random"]
PrunerName = Literal["median", "halving", "none"]


@dataclass(frozen=True)
class Search:
    """What the studies of a search have in common."""

    budget: Budget
    sampler: SamplerName
    pruner: PrunerName
    seeds: int
    """Cells of a trial, each at a seed of its own."""
    seed: int
    """Of the sampler."""
    storage: str | None
    """Its address; None for a journal in the results folder."""


@dataclass(frozen=True)
class StudyPlan:
    """One study: where it starts, what it varies, and what it is judged by."""

    name: str
    cell: Cell
    """With the settings that the search starts from."""
    space: Space
    objectives: tuple[str, ...]
    """Columns of the results table."""

    def only(self, names: Collection[str]) -> Self:
        """The same with some of the settings, by their names without what stands before the dot."""
        space = {name: d for name, d in self.space.items() if name.partition(".")[2] in names}
        return replace(self, space=space)

    @property
    def start(self) -> Start:
        """Place 0: the settings that the search starts from, where its scales can hold them."""
        values = starting_point(self.cell)
        return {
            name: (among, values[name])
            for name, among in self.space.items()
            if holds(among, values.get(name))
        }

    def about(self, search: Search, execution: Execution) -> dict[str, Any]:
        """What the study is for, which is stored with it and may not change."""
        return {
            "schema": SCHEMA,
            "numerics": NUMERICS,
            "task": self.cell.task,
            "estimator": self.cell.estimator,
            "objectives": list(self.objectives),
            "space": {name: distribution_to_json(among) for name, among in self.space.items()},
            "profile": execution.profile,
            "data": self.cell.dataset_digest,
            "task settings": self.cell.task_settings,
            "estimator settings": self.cell.estimator_settings,
            "training": self.cell.training,
            "evaluation": self.cell.evaluation,
            "sampler": search.sampler,
            "pruner": search.pruner,
            "seed": search.seed,
            "seeds": search.seeds,
        }

    def open(self, search: Search, execution: Execution) -> SharedStudy:
        """The stored study.

        Raises:
            UserError: the storage can't be reached, or holds another study of this name.
        """
        storage = open_storage(search.storage, execution.results)
        pruner = _pruner(search.pruner) if len(self.objectives) == 1 else NopPruner()
        return SharedStudy(storage, self.name, self.about(search, execution), pruner)


@dataclass(frozen=True)
class Trialled:
    """What became of a trial."""

    study: str
    place: int | None
    """None: there was no trial left to run."""
    state: str = ""
    """complete, pruned, failed, or lost where the trial was taken for dead meanwhile."""
    reason: str | None = None
    values: tuple[float, ...] = ()
    parameters: dict[str, Any] | None = None


def check_comparable(plans: Sequence[StudyPlan], search: Search, execution: Execution) -> None:
    """Refuse studies whose values can't stand beside those that a folder has of the same task.

    Raises:
        UserError: one differs in something of `COMPARED`, the folder had another name when they
            were begun, or the storage can't be reached.
    """
    storage = open_storage(search.storage, execution.results)
    prefix = f"{execution.results.name}:"
    # A database may hold the studies of many folders, a journal those of its own alone.
    stored = SharedStudy.stored(storage, "" if search.storage is None else prefix)
    for other in stored:
        begun, _, _ = other.study.study_name.rpartition(":")
        if begun != execution.results.name:
            raise UserError(
                f"--out {execution.results} holds a search that was begun in a folder of the name "
                f"{begun}, after which its studies are named: rename it, or give another --out"
            )
    for plan, other in itertools.product(plans, stored):
        if other.about["task"] == plan.cell.task:
            about = plan.about(search, execution)
            other.check({name: about[name] for name in COMPARED})


def run_search(
    plans: Sequence[StudyPlan],
    search: Search,
    execution: Execution,
    done: Callable[[Trialled], None] = lambda trialled: None,
) -> None:
    """Run what is missing of the studies, one trial of each in turn.

    Args:
        plans: the studies.
        search: how to search.
        execution: how to run the cells.
        done: called with each trial as it ends.
    """
    run = uuid.uuid4().hex
    compile_before(execution.limits)
    try:
        while True:
            try:
                _run_together(plans, search, execution, run, done)
                break
            except BrokenProcessPool:  # a worker was killed: what it had is claimed again
                continue
    except KeyboardInterrupt:
        for plan in plans:
            plan.open(search, execution).withdraw(run)
        raise


def _run_together(
    plans: Sequence[StudyPlan],
    search: Search,
    execution: Execution,
    run: str,
    done: Callable[[Trialled], None],
) -> None:
    """Run trials side by side until no study has one left, or a worker process dies."""
    unfinished = {plan.name: plan for plan in plans}

    def in_turn() -> Iterator[Call]:
        while unfinished:
            for plan in list(unfinished.values()):
                yield run_trial, (plan, search, execution, run)

    for trialled in side_by_side(in_turn(), execution.jobs, ahead=0):
        if trialled.place is None:
            unfinished.pop(trialled.study, None)
        else:
            done(trialled)


def run_trial(plan: StudyPlan, search: Search, execution: Execution, run: str) -> Trialled:
    """Claim the next trial of a study, run its cells, and tell the study what came of them.

    Raises:
        StorageError: an outcome can't be stored, or the study's storage has gone.
    """
    with database_errors(search.storage):
        return _run_trial(plan, search, execution, run)


def _run_trial(plan: StudyPlan, search: Search, execution: Execution, run: str) -> Trialled:
    shared = plan.open(search, execution)
    trial = shared.claim(search.budget, plan.start, run)
    if trial is None:
        return Trialled(plan.name, None)
    # Each place has a sampler of its own, so that a study that was interrupted goes on as if not.
    shared.study.sampler = _sampler(search, f"{plan.name} {place(trial)}")
    values = suggest(trial, plan.space)
    with beating(trial):
        outcomes = _run_cells(plan, search, execution, trial, values)
    return _tell(plan, shared, trial, execution, outcomes)


def _run_cells(
    plan: StudyPlan, search: Search, execution: Execution, trial: Trial, values: dict[str, Any]
) -> list[Outcome]:
    """Run a trial's cells one after another, up to the first that does not end well."""
    outcomes: list[Outcome] = []
    for number in range(search.seeds):
        estimator = all_estimators()[plan.cell.estimator]
        try:
            cell = trial_cell(plan.cell, values, FIRST_TUNING_SEED + number)
        except ValidationError as error:  # values that do not go together
            reason = str(invalid(plan.name, error, estimator.Settings))
            return [Outcome(plan.cell, "skipped", reason)]
        settings = estimator.Settings(**cell.estimator_settings)
        refusal = estimator.refusal(cell_latent(cell, execution.data_dir).space, settings)
        if refusal is not None:
            outcomes.append(Outcome(cell, "skipped", refusal))
        else:
            judged = number == 0 and len(plan.objectives) == 1
            watch = _pruning(plan, search, trial) if judged else _ignore
            if stored_status(execution.results, cell) == "ok":
                _replay(execution, cell, watch)
                outcomes.append(Outcome(cell, "ok", None))
            else:
                outcomes.append(run_cell(cell, execution, execution.jobs - 1, watch))
        if outcomes[-1].status != "ok":
            break
    return outcomes


def trial_cell(start: Cell, values: dict[str, Any], seed: int) -> Cell:
    """The cell of a trial: that of the start, with other values and another seed."""
    settings, training = with_named(start.estimator_settings, start.training, values)
    return replace(
        start,
        estimator_settings=all_estimators()[start.estimator].Settings(**settings).model_dump(),
        training=TrainingSettings(**training).model_dump(),
        seed=seed,
    )


def _pruning(plan: StudyPlan, search: Search, trial: Trial) -> Watch:
    """Report a cell's evaluations on the way, and end it where the pruner says so.

    Not before `PATIENCE` of the training is done: settings that are good in the end may begin late.
    """
    training = TrainingSettings(**plan.cell.training)
    first, last = PATIENCE * training.epochs, training.epochs
    evaluations = 0

    def watch(row: dict[str, Any]) -> None:
        nonlocal evaluations
        value = row[plan.objectives[0]]
        if value is None or row.get("selection") or not first <= row["epoch"] < last:
            return
        evaluations += 1
        with database_errors(search.storage):  # here: what else is raised here is the cell's doing
            trial.report(value, evaluations)
            pruned = trial.should_prune()
        if pruned:
            raise PrunedError(f"{plan.objectives[0]} {value:.4g} at epoch {row['epoch']:g}")

    return watch


def _ignore(row: dict[str, Any]) -> None:
    """Watch nothing."""


def _replay(execution: Execution, cell: Cell, watch: Watch) -> None:
    """Report the evaluations of a stored cell, as later trials are judged by them too.

    It came to its end before its trial was stopped: nothing is saved by pruning it now.
    """
    for row in rows_of_cell(cell_path(execution.results, cell)).to_pylist():
        with suppress(PrunedError):
            watch(row)


def _tell(
    plan: StudyPlan,
    shared: SharedStudy,
    trial: Trial,
    execution: Execution,
    outcomes: Sequence[Outcome],
) -> Trialled:
    """Tell the study how a trial ended, with the means over its cells."""
    rows = [last_row(execution.results, o.cell) for o in outcomes if o.status != "skipped"]
    last = outcomes[-1]
    reason = last.reason
    trial.set_user_attr("train_seconds", sum(row["train_seconds"] or 0.0 for row in rows))
    trial.set_user_attr("keys", [outcome.cell.key for outcome in outcomes])
    values: tuple[float, ...] = ()
    if last.status == "ok":
        metrics = _means(rows, (*all_tasks()[plan.cell.task].metrics, "decoder_calls"))
        trial.set_user_attr("metrics", metrics)
        values = tuple(metrics[name] for name in plan.objectives)
        state = TrialState.COMPLETE
        if not np.isfinite(values).all():
            state, reason = TrialState.PRUNED, f"no finite {', '.join(plan.objectives)}"
            values = ()
    elif last.status == "failed":
        state = TrialState.FAIL
    else:
        state = TrialState.PRUNED
        reason = f"{last.status}: {reason}" if last.status != "pruned" else reason
    if reason is not None:
        trial.set_user_attr("reason", reason)
    try:
        shared.study.tell(trial, values or None, state)
    except ValueError:  # it was silent for so long that another process has given it up
        return Trialled(plan.name, place(trial), "lost", "taken for dead by another process")
    how = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    return Trialled(plan.name, place(trial), how[state], reason, values, trial.params)


def _means(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """Means over cells; the floor takes no decoder calls, which its rows leave out."""
    return {name: float(np.mean([row[name] or 0.0 for row in rows])) for name in names}


def _sampler(search: Search, name: str) -> BaseSampler:
    seed = derive_seed(search.seed, name) % 2**32  # what numpy takes
    return TPESampler(seed=seed) if search.sampler == "tpe" else RandomSampler(seed=seed)


def _pruner(name: PrunerName) -> BasePruner:
    return {"median": MedianPruner, "halving": SuccessiveHalvingPruner, "none": NopPruner}[name]()
