"""The command line. torch and the rest are imported by the command that needs them."""

import os
import signal
import sys
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from analysis.texts import printable
from bench.cli.options import Grid, folder, results_errors
from bench.cli.output import Output
from bench.cli.tune import SearchGrid, Tuning
from bench.errors import UserError, check_words, unknown

if TYPE_CHECKING:
    from analysis.schema import KindName
    from bench.cells.cell import Planned
    from bench.grid.runner import Execution

QUIET = 0.5
"""Most processes, as a mean over the last minute, that may have run on a machine that is quiet."""

HELP = """Compare gradient estimators for models with discrete latent variables.

Without a command, trains and evaluates every task with every estimator. Cells that are stored
already are not run again: the same command goes on where it was stopped.

Exits with 0 if all is well, 1 if a cell failed (status and merge: or is missing), 2 for a mistake
in the command, 130 if it was stopped.
"""

Against = Annotated[Path | None, Parameter(converter=folder)]

DEFAULT_GRID = Grid()
DEFAULT_OUTPUT = Output()
DEFAULT_SEARCH_GRID = SearchGrid()
DEFAULT_TUNING = Tuning()

app = App(name="run_bench.py", help=HELP, version_flags=[], suppress_keyboard_interrupt=False)


@app.default
def run(
    *,
    grid: Grid = DEFAULT_GRID,
    output: Output = DEFAULT_OUTPUT,
    timing: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Train and evaluate every task with every estimator.

    Cells that are stored already are not run again. Exits with 1 if any cell failed.

    Parameters
    ----------
    timing
        Take the time of some steps of each cell, one cell at a time, in place of training; in a
        results folder of its own.
    """
    grid.check(alone=timing)
    output.check()
    planned = grid.plan(grid.load_profile())
    if not timing:
        return _run(planned, grid.execution("training"), "training", output)
    if not output.quiet:
        _tell_if_busy(output)
    timed = [replace(one, cell=replace(one.cell, timing=True)) for one in planned]
    return _run(timed, replace(grid.execution("timing"), jobs=1), "timing", output)


@app.command
def gradients(
    *, grid: Grid = DEFAULT_GRID, output: Output = DEFAULT_OUTPUT, trained_by: str = "dense"
) -> int:
    """Measure bias, variance and cost of every estimator's gradient, against the exact one.

    Models are trained by one estimator, and measured at some points of their training. Cells that
    are stored already are not run again. Exits with 1 if any cell failed.

    Parameters
    ----------
    trained_by
        The estimator that the models are trained by.
    """
    from bench.cli.registered import no_single_estimator
    from bench.gradients.plan import plan_gradients
    from estimators.registry import all_estimators

    grid.check()
    output.check()
    profile = grid.load_profile()
    if trained_by not in all_estimators():  # one name, where the grid takes several, or all
        raise no_single_estimator(trained_by, all_estimators(), "see run_bench.py list")
    models = grid.plan(profile, trained_by)
    planned = plan_gradients(grid.plan(profile), models, profile, grid.data_dir)
    return _run(planned, grid.execution("gradients"), "gradients", output)


@app.command
def tune(
    *,
    grid: SearchGrid = DEFAULT_SEARCH_GRID,
    tuning: Tuning = DEFAULT_TUNING,
    output: Output = DEFAULT_OUTPUT,
) -> int:
    """Search hyper-parameters: a study with an equal budget for each task and estimator.

    Trials are judged by validation data, at seeds that the benchmark does not use. Trials that are
    stored already are not run again, and several processes may share a folder or a database. The
    best settings become a profile: --profile FOLDER/best.toml runs the grid with them. Exits with 1
    if no trial of a study had a value.
    """
    from bench.cli.tune import conclude_search, shown
    from bench.search.storage import database_errors
    from bench.search.tuning import check_comparable, run_search

    grid.check()
    tuning.check()
    output.check()
    search = tuning.search(grid.seeds or 1)
    execution = grid.execution("tune")
    plans = tuning.studies(grid, execution)
    console = output.console()
    # What is wrong with a stored study is better known before anything runs.
    with database_errors(search.storage):
        check_comparable(plans, search, execution)
        studies = [plan.open(search, execution) for plan in plans]
        dead = sum(study.bury() for study in studies)
    if dead:
        console.print(f"trials whose process has died, to be run again: {dead}")
    told = shown(studies, search.budget.trials, output, console)
    with database_errors(search.storage), told as done:
        run_search(plans, search, execution, done)
    return conclude_search(search.storage, execution, grid.load_profile(), output, console)


@app.command(name="list")
def list_(*, settings: Annotated[bool, Parameter(negative=())] = False) -> int:
    """List tasks, estimators and profiles, with what each needs and where it comes from.

    Parameters
    ----------
    settings
        Print every setting that a profile can have, with its default and what it is.
    """
    from rich.console import Console

    from bench.cli.listing import print_listing, print_settings
    from bench.cli.registered import check_registered

    check_registered()
    (print_settings if settings else print_listing)(Console())
    return 0


@app.command
def status(results: Path, /) -> int:
    """Show what is done, stale, failed and missing in a results folder, and what runs.

    It reads files alone, and ends with the command that goes on. Exits with 0 if all that was asked
    for is there and well, else with 1.

    Parameters
    ----------
    results
        The folder that `--out` named.
    """
    from rich.console import Console

    from bench.results.status import print_status, status_of

    with results_errors():
        found = status_of(results)
    print_status(found, Console())
    return int(bool(found.open))


@app.command
def merge(*results: Path, out: Annotated[Path, Parameter(alias="-o", converter=folder)]) -> int:
    """Join results folders, from several machines say, into one.

    Cells that are in several must have the same numbers. One that is ok counts before one that
    failed. Exits with 1 if any cell that was asked for is not there, or not well.

    Parameters
    ----------
    results
        Folders that `--out` named, two or more.
    out
        The folder to write: a new one, or that of the same merge before.
    """
    from rich.console import Console

    from bench.cli.ending import report_on
    from bench.printing import print_line
    from bench.results.merge import merge_folders
    from bench.results.status import print_status, status_of

    console = Console()
    with results_errors():
        merged = merge_folders(results, out)
        for line in merged.lines():
            print_line(console, line)
        written = report_on(out, merged.kind, console=None)
        found = status_of(out)
    print_status(found, console)
    if written is not None:
        print_line(console, f"tables and figures: {written}")
    return int(bool(found.open))


@app.command
def env(*, json: Annotated[bool, Parameter(negative=())] = False) -> int:
    """Show what every row says of where it was made: commit, versions, machine.

    Parameters
    ----------
    json
        As JSON, for machines.
    """
    from json import dumps

    from bench.cells.provenance import environment

    found = environment()
    if json:
        print(dumps(found))
        return 0
    for name, value in found.items():
        print(f"{name:12}  {_plain(value)}")
    return 0


@app.command
def report(results: Path, /, *, baseline: str | None = None, against: Against = None) -> int:
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
    from analysis.comparisons import UnknownBaselineError
    from analysis.gradients import write_gradient_report
    from analysis.report import write_report
    from analysis.search import write_search_report
    from analysis.stored import kind_of
    from analysis.timing import write_timing_report
    from bench.grid.claims import folder_claimed

    with results_errors():
        kind = kind_of(results)
    with results_errors(), folder_claimed(results):
        if kind == "training":
            try:
                written = write_report(results, baseline, against)
            except UnknownBaselineError as error:
                from bench.cli.registered import no_single_estimator  # which imports torch

                raise no_single_estimator(error.name, error.known, error.listing) from error
        elif baseline or against:
            raise UserError(f"--baseline and --against are for trainings, {results} holds {kind}")
        else:
            write = {
                "gradients": write_gradient_report,
                "search": write_search_report,
                "timing": write_timing_report,
            }
            written = write[kind](results)
    for path in written:
        print(path)
    return 0


def main() -> None:
    """Run the command line and exit: 0 all is well, 1 a cell failed, 2 a mistake of the user's,
    130 it was stopped."""
    os.environ["MPLBACKEND"] = "agg"  # a notebook's may not be there, and no window is opened
    os.environ["PYTHONSAFEPATH"] = "1"  # else a random.py that lies about is that of our workers
    _print_what_can_be_printed()
    try:
        _heed_requests_to_stop()
        check_words(sys.argv[1:])
        code = app(
            sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_value"
        )
    except KeyboardInterrupt:
        print(
            "\nstopped; what was finished is stored: run the same command to go on", file=sys.stderr
        )
        code = 130
    except UnusedCliTokensError as error:
        _tell(str(_left_over(error.unused_tokens or [""])))
        code = 2
    except CycloptsError as error:
        what = " ".join(str(error).split()).removesuffix(".")
        stop = "" if what.endswith("?") else ";"
        _tell(f"{what}{stop} see run_bench.py{_command()} --help")
        code = 2
    except UserError as error:
        _tell(str(error))
        code = 2
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        _tell(f"{where}{(error.strerror or str(error)).lower()}")
        code = 2
    sys.exit(code)


def _tell(error: str) -> None:
    """Tell of a mistake. What is wrong with an option is said with what was given for it, which may
    be an address with a password."""
    print(f"error: {printable(error)}", file=sys.stderr)


def _command() -> str:
    """The command that was asked for, if any, after a space."""
    return "".join(f" {word}" for word in sys.argv[1:2] if word in app)


def _left_over(words: list[str]) -> UserError:
    """The error for words that no option and no command takes."""
    see = "see run_bench.py --help"
    if sys.argv[1] == words[0]:
        return unknown("command", words[0], [name for name in app if name[0] != "-"], see)
    if words[0] in app:
        return UserError(f"{words[0]!r}: give a command before all options; {see}")
    return UserError(f"{words[0]!r} is a word too many: names have commas between them; {see}")


def _print_what_can_be_printed() -> None:
    """Have "?" stand for what the encoding of a terminal or a file lacks, ASCII's say."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def _heed_requests_to_stop() -> None:
    """Take a scheduler's request to end, or a terminal's that is closed, for Ctrl-C.

    Otherwise this process would end at once, and its workers go on without it.
    """
    for request in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(request) == signal.SIG_DFL:  # else somebody has decided: nohup does
            signal.signal(request, signal.default_int_handler)


def _run(
    planned: "list[Planned]",
    execution: "Execution",
    kind: "KindName",
    output: Output,
) -> int:
    """Run cells with their progress shown, report on them, and say how they ended."""
    from analysis.stored import holds_asked
    from bench.cli.ending import conclude, report_on
    from bench.cli.progress import shown
    from bench.grid.grid import run_cells

    console = output.console()
    with shown([item.cell for item in planned], execution, output, console) as done:
        outcomes = run_cells(planned, execution, done)
    written: Path | None = None
    with results_errors():
        if holds_asked(execution.results):  # else the grid's time was over before any cell began
            written = report_on(execution.results, kind, None if output.quiet else console)
    return conclude(outcomes, execution.results, written, output, console)


def _tell_if_busy(output: Output) -> None:
    """Say that times will not be those of a quiet machine, if this one has not been quiet."""
    from bench.printing import print_line

    load = os.getloadavg()[0]
    if load > QUIET:
        line = f"the machine has been busy in the last minute (load {load:.1f}): times may be long"
        print_line(output.console(), line)


def _plain(value: object) -> str:
    """A value of the environment as a person reads it."""
    if value is None:
        return "unknown, or not installed"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)
