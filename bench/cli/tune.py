"""The command that searches hyper-parameters: its options, checked, and what it shows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from bench.cli.options import WHOLE, Duration, Grid, results_errors
from bench.cli.output import Output
from bench.errors import UserError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from bench.grid.runner import Execution
    from bench.profiles.profile import Profile
    from bench.search.studies import SharedStudy
    from bench.search.tuning import Search, StudyPlan, Trialled

DEFAULT_TRIALS = 20

BAD = ("failed", "lost")
"""States of trials that are told of whatever else is."""


@Parameter(name="*")
@dataclass(frozen=True)
class SearchGrid(Grid):
    """Which studies to run, and how: options that mean something else than to a grid, or nothing,
    which then are refused and not shown."""

    seeds: Annotated[int | None, WHOLE] = None
    """How many seeds a trial trains at, from 10,000, which no grid uses; 1 by default."""
    out: str | None = None
    """Results folder; results/tune-PROFILE by default, with -DATASET after it where --dataset is
    given."""
    retry: Annotated[Literal[0, 1], Parameter(show=False)] = 1
    force: Annotated[bool, Parameter(show=False)] = False
    grid_time_limit: Annotated[Duration, Parameter(show=False)] = None
    executor: Annotated[Literal["loky", "dask"], Parameter(show=False)] = "loky"
    scheduler: Annotated[str | None, Parameter(show=False)] = None


@Parameter(name="*")
@dataclass(frozen=True)
class Tuning:
    """How to search."""

    trials: Annotated[int | None, WHOLE] = None
    """Trials of each study in all, those that are stored included; 20 by default."""
    train_seconds: float | None = None
    """Seconds of training of each study in all, in place of a number of trials."""
    objective: str | None = None
    """Column to go by, such as elbo, accuracy, nll, loss; each task's own by default. Several with
    commas between them, such as accuracy,decoder_calls, search a Pareto front."""
    parameters: str | None = None
    """Names of the settings to vary, with commas between them; all that are declared by default."""
    sampler: Literal["tpe", "random"] = "tpe"
    """Where the next trial is."""
    pruner: Literal["median", "halving", "none"] = "median"
    """Which trials end early, by their evaluations on the way."""
    sampler_seed: Annotated[int, WHOLE] = 0
    """One job, the same seed and a folder of the same name give the same study."""
    storage: str | None = None
    """Address of a database to share studies through, such as postgresql://user@host/name; a file
    in the results folder by default."""

    def check(self) -> None:
        """Refuse numbers that can't be.

        Raises:
            UserError: an option is wrong.
        """
        if self.trials is not None and self.train_seconds is not None:
            raise UserError("--trials and --train-seconds: give one of them")
        if self.trials is not None and self.trials < 1:
            raise UserError(f"--trials {self.trials}: give 1 or more")
        if self.train_seconds is not None and not self.train_seconds > 0:
            raise UserError(f"--train-seconds {self.train_seconds:g}: give more than 0")

    def search(self, seeds: int) -> "Search":
        """What the studies have in common, with `seeds` cells a trial."""
        from bench.search.studies import Budget
        from bench.search.tuning import Search

        trials = self.trials
        if trials is None and self.train_seconds is None:
            trials = DEFAULT_TRIALS
        return Search(
            budget=Budget(trials, self.train_seconds),
            sampler=self.sampler,
            pruner=self.pruner,
            seeds=seeds,
            seed=self.sampler_seed,
            storage=self.storage,
        )

    def studies(self, grid: Grid, execution: "Execution") -> "list[StudyPlan]":
        """The studies that are asked for, of all pairs that can run.

        Raises:
            UserError: a name is wrong, or there is nothing to search.
        """
        from bench.search.space import check_names, search_space
        from bench.search.tuning import StudyPlan

        cells = [item.cell for item in grid.plan(grid.load_profile()) if item.skip is None]
        first = [cell for cell in cells if cell.seed == 0]
        if not first:
            raise UserError("none of these estimators runs on these tasks; see run_bench.py list")
        judged = {cell.task: self._objectives(cell.task) for cell in first}
        plans = []
        names = None if self.parameters is None else _split("--parameters", self.parameters)
        for cell in first:
            objectives = judged[cell.task]
            space = search_space(cell, costs="decoder_calls" in objectives)
            plans.append(
                StudyPlan(
                    f"{execution.results.name}:{cell.task}/{cell.estimator}",
                    cell,
                    space,
                    objectives,
                )
            )
        if names is None:
            return plans
        check_names(names, {plan.name: plan.space for plan in plans})
        return [plan.only(names) for plan in plans]

    def _objectives(self, task: str) -> tuple[str, ...]:
        """The columns that a task is judged by."""
        from tasks.registry import all_tasks

        metrics = all_tasks()[task].metrics
        if self.objective is None:
            return metrics[:1]
        known = [*metrics, "decoder_calls"]
        objectives = _split("--objective", self.objective)
        for name in objectives:
            if name not in known:
                listing = f"there are {', '.join(known)}"
                raise unknown(f"objective of {task}", name, known, listing)
        return tuple(objectives)


def _split(option: str, names: str) -> list[str]:
    found = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not found:
        raise UserError(f"{option}: give one name at least")
    return found


@contextmanager
def shown(
    studies: "Sequence[SharedStudy]", trials: int | None, output: Output, console: "Console"
) -> "Iterator[Callable[[Trialled], None]]":
    """Show trials as they end: a bar for all on a terminal, and a line for each.

    Args:
        studies: with the trials that they have already.
        trials: how many each is to have, where that is known.
        output: what to tell.
        console: where to.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from analysis.scores import LESS_IS_BETTER
    from analysis.search import settings_text
    from bench.printing import print_line
    from bench.search.results import best_trial

    best: dict[str, float] = {}
    less: dict[str, bool] = {}
    for shared in studies:
        name, so_far = shared.study.study_name, best_trial(shared)
        less[name] = shared.about["objectives"][0] in LESS_IS_BETTER
        if so_far is not None:
            best[name] = so_far.values[0]

    def line(trialled: "Trialled") -> str:
        place, name = trialled.place, trialled.study.partition(":")[2]
        if not trialled.values:
            return f"{name} trial {place}: {trialled.state}: {trialled.reason}"
        value = trialled.values[0]
        choose = min if less[trialled.study] else max
        best[trialled.study] = choose(best.get(trialled.study, value), value)
        values = ", ".join(f"{value:.4g}" for value in trialled.values)
        parameters = settings_text(trialled.parameters or {})
        return f"{name} trial {place}: {values} (best {best[trialled.study]:.4g}) {parameters}"

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = console.is_interactive and not output.quiet
    total = None if trials is None else trials * len(studies)
    stored = sum(len(shared.counted()) for shared in studies)
    with Progress(*columns, console=console, transient=True, disable=not bars) as bar:
        task = bar.add_task("trials", total=total, completed=stored)

        def done(trialled: "Trialled") -> None:
            bar.advance(task)
            output.emit(
                "trial", study=trialled.study, trial=trialled.place, state=trialled.state,
                reason=trialled.reason, values=trialled.values, parameters=trialled.parameters,
            )  # fmt: skip
            if trialled.state in BAD or not output.quiet:
                print_line(console, line(trialled))

        yield done


def conclude_search(
    storage: str | None,
    execution: "Execution",
    profile: "Profile",
    output: Output,
    console: "Console",
) -> int:
    """Write what a search has found, report on it, and say where; 1 if a study has no value.

    Args:
        storage: where the studies are; None for the folder's own journal.
        execution: how they were run.
        profile: what the search started from.
        output, console: what to tell, and where.
    """
    from analysis.search import sensitivity
    from analysis.trials import load_trials
    from bench.cli.ending import written_report
    from bench.grid.claims import folder_claimed
    from bench.printing import print_frames, print_line
    from bench.search.results import write_results
    from bench.search.storage import database_errors

    with results_errors(), database_errors(storage), folder_claimed(execution.results):
        best = write_results(storage, execution, profile)
        trials = load_trials(execution.results)
        if trials.empty:  # other processes have all that there are to be
            output.emit("end", counts={}, report=None, best=None)
            print_line(console, "no trial has ended yet: there is nothing to report")
            return 1
        written = written_report(execution.results, "search")
        if not output.quiet:
            print_frames(trials, sensitivity, console)
    counts = trials["state"].value_counts().to_dict()
    found = None if best is None else str(best)
    report = None if written is None else str(written)
    output.emit("end", counts=counts, report=report, best=found)
    if report is not None:
        print_line(console, f"tables and figures: {report}")
    if found is not None:
        print_line(console, f"the best settings: --profile {quote(found)}")
    return int(trials["value"].notna().groupby(trials["study"]).any().eq(False).any())
