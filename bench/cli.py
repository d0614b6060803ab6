"""The command line. torch and the rest are imported by the command that needs them."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter

from bench.errors import UserError, unknown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from rich.console import Console

    from bench.runner import Outcome

app = App(
    name="run_bench.py",
    help="Compare gradient estimators for models with discrete latent variables.",
    version_flags=[],
    suppress_keyboard_interrupt=False,
)


@app.default
def run(
    *,
    tasks: str = "all",
    estimators: str = "all",
    profile: str = "quick",
    seeds: int | None = None,
    dataset: str | None = None,
    data_dir: Annotated[Path | None, Parameter(env_var="BENCH_DATA_DIR")] = None,
    out: Path | None = None,
    jobs: int | None = None,
    threads: int = 1,
    device: str = "cpu",
) -> int:
    """Train and evaluate every task with every estimator.

    Cells that are stored already are not run again. Exits with 1 if any cell failed.

    Parameters
    ----------
    tasks
        Names separated by commas, or "all".
    estimators
        Names separated by commas, or "all".
    profile
        How long and how large: quick, standard, paper, or the path of a TOML file.
    seeds
        How many seeds, from 0; the profile's number by default.
    dataset
        digits, mnist or fashion-mnist, in place of the profile's.
    data_dir
        Folder that holds a folder for each data set of idx files.
    out
        Results folder; results/PROFILE by default, or results/PROFILE-DATASET.
    jobs
        Cells that run at the same time; by default as many as the threads allow, one on a GPU.
    threads
        Threads of each cell.
    device
        Where to train: cpu, cuda, cuda:1.
    """
    from rich.console import Console

    from bench.cells import plan
    from bench.profiles import load_profile
    from bench.progress import shown
    from bench.runner import Execution, run_cells
    from estimators.registry import all_estimators
    from tasks.data import DataError
    from tasks.registry import all_tasks

    chosen_tasks = _names("task", tasks, all_tasks())
    chosen_estimators = _names("estimator", estimators, all_estimators())
    loaded = load_profile(profile, [*all_tasks()], [*all_estimators()])
    for name, value in (("seeds", seeds), ("jobs", jobs), ("threads", threads)):
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: give 1 or more")
    _check_device(device)
    results = out or Path("results") / "-".join(filter(None, [Path(profile).stem, dataset]))
    count = seeds or loaded.seeds
    try:
        planned = plan(
            chosen_tasks, chosen_estimators, count, loaded, dataset, data_dir, threads, device
        )
    except DataError as error:
        raise UserError(str(error)) from error
    _check_folder(results)
    execution = Execution(
        results=results,
        profile=Path(profile).stem,
        data_dir=data_dir,
        device=device,
        jobs=jobs or (1 if device.startswith("cuda") else max(1, (os.cpu_count() or 1) // threads)),
        command=" ".join(["run_bench.py", *sys.argv[1:]]),
    )
    console = Console()
    with shown([item.cell for item in planned], results, console) as done:
        outcomes = run_cells(planned, execution, done)
    return _conclude(results, outcomes, console)


@app.command(name="list")
def list_() -> int:
    """List tasks, estimators and profiles, with what each needs and where it comes from."""
    from rich.console import Console

    from bench.listing import print_listing

    print_listing(Console())
    return 0


@app.command
def report(results: Path, /) -> int:
    """Write the summary tables and figures of a results folder into it.

    Parameters
    ----------
    results
        The folder that `--out` named.
    """
    from analysis.report import write_report

    with _results_errors():
        written = write_report(results)
    for path in written:
        print(path)
    return 0


def main() -> None:
    """Run the command line and exit: 0 all is well, 1 a cell failed, 2 a mistake of the user's."""
    try:
        code = app(exit_on_error=False, print_error=False, result_action="return_value")
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
    sys.exit(code)


def _names(kind: str, given: str, known: "Collection[str]") -> list[str]:
    """Names separated by commas, each checked, in the order of the registry and without doubles."""
    if given == "all":
        return list(known)
    names = {name.strip() for name in given.split(",")}
    for name in sorted(names):
        if name not in known:
            raise unknown(kind, name, known, "see run_bench.py list")
    return [name for name in known if name in names]


def _check_folder(results: Path) -> None:
    """Refuse a results folder that can't be written to."""
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {results}: {(error.strerror or 'no folder').lower()}") from error
    if not os.access(results, os.W_OK):
        raise UserError(f"--out {results}: not writable")


def _check_device(device: str) -> None:
    """Refuse a device that isn't there."""
    import torch

    if device.partition(":")[0] not in {"cpu", "cuda"}:
        raise UserError(f"--device {device}: give cpu, cuda, or cuda:N")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {device}: {reason}") from error


@contextmanager
def _results_errors() -> "Iterator[None]":
    """Tell what is wrong with a results folder in a line."""
    from analysis.load import ResultsError

    try:
        yield
    except ResultsError as error:
        raise UserError(str(error)) from error


def _conclude(results: Path, outcomes: "list[Outcome]", console: "Console") -> int:
    """Compact, report, and print the summary; 1 if any cell failed."""
    from collections import Counter

    from analysis.load import load_results
    from analysis.report import write_report
    from bench.listing import print_summaries
    from bench.store import compact

    with _results_errors():
        compact(results)
        written = write_report(results)
        print_summaries(load_results(results), console)
    counts = Counter(outcome.status for outcome in outcomes)
    console.print(", ".join(f"{n} {status}" for status, n in sorted(counts.items())))
    console.print(f"tables and figures: {written[0]}")
    return int(any(status not in {"ok", "skipped", "stored"} for status in counts))
