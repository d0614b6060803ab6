"""The command line. torch and the rest are imported by the command that needs them."""

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError

from bench.cli_options import Grid, results_errors
from bench.cli_tune import Tuning
from bench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.cells import Planned
    from bench.runner import Execution, Outcome

DEFAULT_GRID = Grid()
DEFAULT_TUNING = Tuning()

app = App(
    name="run_bench.py",
    help="Compare gradient estimators for models with discrete latent variables.",
    version_flags=[],
    suppress_keyboard_interrupt=False,
)


@app.default
def run(*, grid: Grid = DEFAULT_GRID) -> int:
    """Train and evaluate every task with every estimator.

    Cells that are stored already are not run again. Exits with 1 if any cell failed.
    """
    from rich.console import Console

    from analysis.load import load_results
    from analysis.report import write_report
    from analysis.tables import summary
    from bench.listing import print_frames
    from bench.store import compact

    grid.check()
    planned = grid.plan(grid.load_profile())
    execution = grid.execution("training")
    console = Console()
    outcomes = _run(planned, execution, console)
    with results_errors():
        compact(execution.results)
        written = write_report(execution.results)
        print_frames(load_results(execution.results), summary, console)
    return _conclude(outcomes, written[0], console)


@app.command
def gradients(*, grid: Grid = DEFAULT_GRID, trained_by: str = "dense") -> int:
    """Measure bias, variance and cost of every estimator's gradient, against the exact one.

    Models are trained by one estimator, and measured at some points of their training. Cells that
    are stored already are not run again. Exits with 1 if any cell failed.

    Parameters
    ----------
    trained_by
        The estimator that the models are trained by.
    """
    from rich.console import Console

    from analysis.gradient_rows import pooled
    from analysis.gradients import quality_table, write_gradient_report
    from analysis.load import load_gradients
    from bench.gradient_plan import plan_gradients
    from bench.listing import print_frames
    from bench.store import compact

    grid.check()
    profile = grid.load_profile()
    models = grid.plan(profile, trained_by)
    planned = plan_gradients(grid.plan(profile), models, profile, grid.data_dir)
    execution = grid.execution("gradients")
    console = Console()
    outcomes = _run(planned, execution, console)
    with results_errors():
        compact(execution.results)
        written = write_gradient_report(execution.results)
        print_frames(pooled(load_gradients(execution.results)), quality_table, console)
    return _conclude(outcomes, written[0], console)


@app.command
def tune(*, grid: Grid = DEFAULT_GRID, tuning: Tuning = DEFAULT_TUNING) -> int:
    """Search hyper-parameters: a study with an equal budget for each task and estimator.

    Trials are judged by validation data, at seeds (--seeds of them a trial, 1 by default) that the
    benchmark does not use. Trials that are stored already are not run again, and several processes
    may share a folder or a database. The best settings become a profile: --profile FOLDER/best.toml
    runs the grid with them.
    """
    from rich.console import Console

    from analysis.search import load_trials, sensitivity, write_search_report
    from bench.cli_tune import shown
    from bench.listing import print_frames
    from bench.search_results import write_results
    from bench.tuning import run_search

    grid.check()
    tuning.check()
    search = tuning.search(grid.seeds or 1)
    execution = grid.execution("tune")
    plans = tuning.studies(grid, execution)
    console = Console()
    # What is wrong with a stored study is better known before anything runs.
    studies = [plan.open(search, execution) for plan in plans]
    dead = sum(study.bury() for study in studies)
    if dead:
        console.print(f"trials whose process has died, to be run again: {dead}")
    with shown(studies, search.budget.trials, console) as done:
        run_search(plans, search, execution, done)
    best = write_results(search.storage, execution, grid.load_profile())
    with results_errors():
        written = write_search_report(execution.results)
        trials = load_trials(execution.results)
        print_frames(trials, sensitivity, console)
    console.print(f"tables and figures: {written[0]}", soft_wrap=True)
    console.print(f"the best settings: --profile {best}", soft_wrap=True)
    return int(trials["value"].notna().groupby(trials["study"]).any().eq(False).any())


@app.command(name="list")
def list_() -> int:
    """List tasks, estimators and profiles, with what each needs and where it comes from."""
    from rich.console import Console

    from bench.listing import print_listing

    print_listing(Console())
    return 0


@app.command
def report(results: Path, /, *, baseline: str | None = None, against: Path | None = None) -> int:
    """Write the tables, figures and HTML page of a results folder into it.

    Parameters
    ----------
    results
        The folder that `--out` named.
    baseline
        The estimator that the others are compared with: dense by default, where it ran.
    against
        Another results folder: every estimator is compared with itself there, seed by seed.
    """
    from analysis.gradients import write_gradient_report
    from analysis.report import write_report
    from analysis.search import write_search_report
    from analysis.stored import kind_of

    with results_errors():
        kind = kind_of(results)
        if kind == "training":
            written = write_report(results, baseline, against)
        elif baseline or against:
            raise UserError(f"--baseline and --against are for trainings, {results} holds {kind}")
        else:
            write = {"gradients": write_gradient_report, "search": write_search_report}[kind]
            written = write(results)
    for path in written:
        print(path)
    return 0


def main() -> None:
    """Run the command line and exit: 0 all is well, 1 a cell failed, 2 a mistake of the user's."""
    try:
        code = app(
            sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_value"
        )
    except KeyboardInterrupt:
        print(
            "\nstopped; what was finished is stored: run the same command to go on", file=sys.stderr
        )
        code = 130
    except CycloptsError as error:
        print(f"error: {' '.join(str(error).split())}; see run_bench.py --help", file=sys.stderr)
        code = 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        print(f"error: {error.filename}: {(error.strerror or str(error)).lower()}", file=sys.stderr)
        code = 2
    sys.exit(code)


def _run(planned: "list[Planned]", execution: "Execution", console: "Console") -> "list[Outcome]":
    """Run cells with their progress shown."""
    from bench.grid import run_cells
    from bench.progress import shown

    with shown([item.cell for item in planned], execution.results, console) as done:
        return run_cells(planned, execution, done)


def _conclude(outcomes: "list[Outcome]", report: Path, console: "Console") -> int:
    """Say how many cells ended how; 1 if any failed."""
    counts = Counter(outcome.status for outcome in outcomes)
    console.print(", ".join(f"{n} {status}" for status, n in sorted(counts.items())))
    console.print(f"tables and figures: {report}", soft_wrap=True)
    return int(any(status not in {"ok", "skipped", "stored"} for status in counts))
