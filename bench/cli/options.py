"""What the commands that run cells have in common: their options, and how these are checked."""

import itertools
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import CycloptsError, Parameter, Token, convert
from pydantic import ByteSize

from bench.errors import UserError, unknown

if TYPE_CHECKING:
    from analysis.schema import KindName
    from bench.cells.cell import Planned
    from bench.grid.limits import Limits
    from bench.grid.runner import Execution
    from bench.profiles.profile import Profile


MOST = 1000
"""Most jobs or threads: more is a slip of the keyboard."""

MOST_SECONDS = 1e9
"""More than 30 years, and the clocks of the system take no more than some hundred."""

MOST_MEMORY = 2**63 - 1
"""Bytes, the most that the system takes for a limit."""

GRID_ALONE = ("retry", "force", "grid_time_limit", "executor")
"""Options that have no meaning for a search."""


def _duration(_: object, tokens: Sequence[Token]) -> float:
    """Seconds, of a number of them or one with units such as 90s, 10m, 2h."""
    given = tokens[0].value
    try:
        found = convert(float | timedelta, [given])
    except CycloptsError as error:
        raise ValueError(f'"{given}" is no time: give seconds, or 90s, 10m, 2h') from error
    return found.total_seconds() if isinstance(found, timedelta) else float(found)


def _whole(_: object, tokens: Sequence[Token]) -> int:
    """A whole number, where the library would round any other."""
    given = tokens[0].value
    try:
        return int(given)
    except ValueError as error:
        raise ValueError(f'"{given}" is no whole number') from error


def folder(_: object, tokens: Sequence[Token]) -> Path | None:
    """A path, of which a shell may have left the ~; none where an environment variable is set but
    empty, as shells have them unset."""
    given = tokens[0]
    if not given.value and given.source != "env":
        raise ValueError("give a folder")
    return Path(given.value).expanduser() if given.value else None


Duration = Annotated[float | None, Parameter(converter=_duration)]
"""An option that takes a time, in seconds."""

WHOLE = Parameter(converter=_whole)
"""Of an option that takes a whole number."""


@Parameter(name="*")
@dataclass(frozen=True)
class Grid:
    """Which cells to run, and how."""

    tasks: Annotated[str, Parameter(alias="--task")] = "all"
    """Names separated by commas, or "all" that the profile has settings for."""
    estimators: Annotated[str, Parameter(alias="--estimator")] = "all"
    """Names separated by commas, of estimators or of wings, such as "relaxed"; or "all" that the
    profile names, if it names any."""
    profile: str = "quick"
    """How long and how large: a name from `run_bench.py list`, or the path of a TOML file."""
    seeds: Annotated[int | None, WHOLE] = None
    """How many seeds, from 0; the profile's number by default."""
    dataset: str | None = None
    """digits, mnist, fashion-mnist or features, in place of the profile's."""
    data_dir: Annotated[Path | None, Parameter(env_var="BENCH_DATA_DIR", converter=folder)] = None
    """Folder that holds a folder for each data set; by default they are fetched."""
    out: str | None = None
    """Results folder; results/PROFILE by default, with "gradients-" or "timing-" before PROFILE for
    these, and -DATASET after it where --dataset is given."""
    jobs: Annotated[int | None, WHOLE] = None
    """Cells that run at the same time; by default as many as the cores that this process may use
    have threads for, one on a GPU."""
    threads: Annotated[int, WHOLE] = 1
    """Threads of each cell."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1."""
    retry: Literal[0, 1] = 1
    """0 leaves what failed, diverged or took too long in an earlier run as it is."""
    force: bool = False
    """Run again also what is stored as ok."""
    time_limit: Duration = None
    """Of a cell, such as 90, 90s, 10m or 2h."""
    grid_time_limit: Duration = None
    """Of the whole grid: what has no outcome then is left to the next run."""
    max_memory: ByteSize | None = None
    """Of a process that runs cells, such as 2G; on Linux."""
    executor: Literal["loky", "dask"] = "loky"
    """Processes of this machine, or the workers of a Dask cluster."""
    scheduler: str | None = None
    """Address of the Dask cluster's scheduler, such as tcp://HOST:8786."""

    def check(self, alone: bool = False) -> None:
        """Refuse numbers and a device that can't be.

        Args:
            alone: cells are to run one at a time on this machine.
        Raises:
            UserError: an option is wrong.
        """
        from bench.profiles.profile import MOST_SEEDS

        for name, most in (("seeds", MOST_SEEDS), ("jobs", MOST), ("threads", MOST)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise UserError(f"--{name} {value}: give 1 to {most}")
        if alone and (self.executor == "dask" or (self.jobs or 1) > 1):
            raise UserError("--timing runs one cell at a time here: leave out --jobs, --executor")
        _check_device(self.device)
        for name in ("time_limit", "grid_time_limit"):
            limit = getattr(self, name)
            if limit is not None and not 0 < limit <= MOST_SECONDS:
                given = f"--{_dashed(name)} {limit}"
                raise UserError(f"{given}: give more than 0 and at most 1e9, as 90, 10m or 2h")
        if self.max_memory is not None and not 0 < self.max_memory <= MOST_MEMORY:
            raise UserError(f"--max-memory {self.max_memory}: give more than 0, below 8EiB, as 2G")
        self._check_executor()

    def _check_executor(self) -> None:
        if (self.executor == "dask") != (self.scheduler is not None):
            raise UserError("--executor dask and --scheduler ADDRESS go together: give both")
        if self.executor == "dask" and self.max_memory is not None:
            raise UserError("--max-memory with --executor dask: its workers have --memory-limit")
        if self.executor == "dask" and self.jobs is not None:
            raise UserError("--jobs with --executor dask: its workers say how many")
        if self.scheduler is not None:
            from bench.grid.remote import check_address

            check_address(self.scheduler)

    def load_profile(self) -> "Profile":
        """The profile, of tasks and estimators that are whole.

        Raises:
            UserError: there is none, it is not valid, or a task or an estimator is faulty.
        """
        from bench.cli.registered import check_registered
        from bench.profiles.profile import load_profile
        from estimators.registry import all_estimators
        from tasks.registry import all_tasks

        check_registered()
        return load_profile(self.profile, [*all_tasks()], [*all_estimators()])

    def plan(self, profile: "Profile", estimators: str | None = None) -> "list[Planned]":
        """The cells of the grid.

        Args:
            profile: where the settings come from.
            estimators: in place of the option.
        Raises:
            UserError: a name, a setting or a data set is wrong.
        """
        from bench.cells.cell import plan
        from estimators.registry import all_estimators, wings
        from tasks.data.base import DataError
        from tasks.registry import all_tasks

        registered, every = all_tasks(), all_estimators()
        own = [name for name in registered if name in (profile.tasks or registered)]
        tasks = _names("task", self.tasks, registered, {"all": own})
        groups = {**wings(), "all": profile.estimators or every}
        chosen = _names("estimator", estimators or self.estimators, every, groups)
        seeds = self.seeds or profile.seeds
        try:
            return plan(
                tasks, chosen, seeds, profile, self.dataset, self.data_dir, self.threads,
                self.device,
            )  # fmt: skip
        except DataError as error:
            raise UserError(str(error)) from error
        except (RuntimeError, ValueError, TypeError, OverflowError) as error:
            # more memory than there is, say, or a number beyond 64 bits
            reason = str(error).splitlines()[0]
            raise UserError(f"a task can't be built from its settings: {reason}") from error

    def execution(self, kind: "KindName | Literal['tune']") -> "Execution":
        """How to run the cells, in a results folder that is there.

        Args:
            kind: what they do.
        Raises:
            UserError: the results folder can't be written to, or read.
        """
        from joblib import cpu_count, effective_n_jobs

        from analysis.load import load_gradients, load_results, load_timing
        from analysis.stored import GRID, holds_results, holds_search, read_grid
        from analysis.texts import command_line
        from bench.grid.runner import Execution

        stem = Path(self.profile).stem
        prefix, load = {
            "training": ("", load_results),
            "gradients": ("gradients", load_gradients),
            "timing": ("timing", load_timing),
            "tune": ("tune", load_results),
        }[kind]
        default = "-".join(part for part in (prefix, stem, self.dataset) if part)
        results = Path("results") / default if self.out is None else Path(self.out).expanduser()
        _check_folder(results)
        with results_errors():  # what is wrong with it is better known before than after
            read_grid(results)
            if holds_results(results):
                load(results)
        if kind != "tune" and holds_search(results):
            raise UserError(f"--out {results} holds a search: give another folder")
        if kind == "tune":
            if (results / GRID).exists():
                raise UserError(f"--out {results} holds a grid: give another folder")
            self._refuse_for_search()
        # Of the cores that affinity and the limits of a container leave.
        jobs = 1 if self.device.startswith("cuda") else max(1, cpu_count() // self.threads)
        return Execution(
            results=results,
            profile=stem,
            data_dir=self.data_dir,
            device=self.device,
            jobs=effective_n_jobs(self.jobs or jobs),  # one where the system allows no processes
            command=command_line(["run_bench.py", *sys.argv[1:]]),
            found=self.load_profile().found(),
            limits=self._limits(),
            retry=bool(self.retry),
            force=self.force,
            scheduler=self.scheduler,
        )

    def _limits(self) -> "Limits":
        """The limits, of which that of the grid begins now."""
        from bench.grid.limits import Limits

        grid = self.grid_time_limit
        return Limits(
            seconds=self.time_limit,
            ends=None if grid is None else time.time() + grid,
            memory=self.max_memory,
        )

    def _refuse_for_search(self) -> None:
        for name in GRID_ALONE:
            if getattr(self, name) != getattr(Grid, name):
                raise UserError(f"--{_dashed(name)} is for grids, a search goes without it")


@contextmanager
def results_errors() -> Iterator[None]:
    """Tell what is wrong with a results folder in a line."""
    from analysis.stored import ResultsError

    try:
        yield
    except ResultsError as error:
        raise UserError(str(error)) from error


def _names(
    kind: str, given: str, known: Collection[str], groups: Mapping[str, Iterable[str]]
) -> list[str]:
    """Names separated by commas, each checked, in the order given and without doubles.

    Args:
        kind: what they name.
        given: by the user.
        known: the registry's.
        groups: names that stand for several of these, where they are none themselves.
    """
    names = [name.strip() for name in given.split(",") if name.strip()]
    if not names:
        raise UserError(f"--{kind}s: give one name at least, or all")
    for name in names:
        if name not in known and name not in groups:
            raise unknown(kind, name, [*known, *groups], "see run_bench.py list")
    found = ([name] if name in known else groups[name] for name in names)
    return [*dict.fromkeys(itertools.chain.from_iterable(found))]


def _dashed(name: str) -> str:
    """An option's name as a user writes it."""
    return name.replace("_", "-")


def _check_folder(results: Path) -> None:
    """Refuse a results folder that can't be written to."""
    if results == Path():
        raise UserError("--out: give a folder of its own, such as results/NAME")
    if results.is_file():
        raise UserError(f"--out {results} is a file: give a folder")
    try:
        for folder in (results, results / "cells", results / "running", results / "figures"):
            folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # a file, or a link to nowhere
        raise UserError(
            f"--out {results}: {error.filename} is no folder: remove it, or give another --out"
        ) from error
    except OSError as error:
        raise UserError(f"--out {results}: {(error.strerror or 'no folder').lower()}") from error
    if not os.access(results, os.W_OK):
        raise UserError(f"--out {results}: not writable")


def _check_device(device: str) -> None:
    """Refuse a device that isn't there."""
    import torch

    if device != "cpu" and device.partition(":")[0] != "cuda":
        raise UserError(f"--device {device}: give cpu, cuda, or cuda:N")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {device}: {reason}") from error
