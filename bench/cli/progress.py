"""What is told while a grid runs: a line for the grid with the time left, one for each running
cell; a line for each outcome where no terminal shows them; JSON for machines."""

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from analysis.stored import ResultsError
from bench.cells.cell import Cell
from bench.cli.output import Output
from bench.cli.pace import Pair, Running, time_left
from bench.grid.executors import Done
from bench.grid.runner import Execution, Outcome, progress_file
from bench.printing import WELL, Bad, duration, print_line
from bench.results.store import last_row

POLL_SECONDS = 0.25


@contextmanager
def shown(
    cells: Sequence[Cell], execution: Execution, output: Output, console: Console
) -> Iterator[Done]:
    """Show the progress of these cells; the context is told of each outcome as it comes."""
    tally = Tally(cells, execution)

    def done(outcome: Outcome) -> None:
        seconds = tally.add(outcome)
        cell = outcome.cell
        output.emit(
            "cell", cell=cell.name, key=cell.key, task=cell.task, estimator=cell.estimator,
            seed=cell.seed, status=outcome.status, reason=outcome.reason, seconds=seconds,
        )  # fmt: skip
        if not output.quiet and not console.is_interactive:
            print_line(console, tally.line(outcome, seconds))
        elif outcome.status not in WELL:
            print_line(console, str(Bad(cell.name, outcome.status, outcome.reason)))

    if output.json or output.quiet or not console.is_interactive:
        yield done
        return
    with _bars(tally, console):
        yield done


@dataclass
class _Seen:
    """A running cell since it was first looked at, or began another part."""

    since: float
    from_share: float
    share: float


class Tally:
    """What is known of a grid as it runs: what has ended, how long that took, and what runs.

    Args:
        cells: all of the grid.
        execution: how they are run.
    """

    def __init__(self, cells: Sequence[Cell], execution: Execution) -> None:
        self.total, self.ended = len(cells), 0
        self._results, self._jobs = execution.results, execution.jobs
        self._on_cluster = execution.scheduler is not None
        self._left = {cell.key: cell for cell in cells}
        self._finished: dict[Pair, list[float]] = {}
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()  # outcomes come on one thread, and are looked at on another

    def add(self, outcome: Outcome) -> float | None:
        """Note an outcome; the seconds that its cell took, where it was trained."""
        with self._lock:
            self.ended += 1
            self._left.pop(outcome.cell.key, None)
            if outcome.status == "skipped":
                return None
            try:
                seconds: float | None = last_row(self._results, outcome.cell)["wall_seconds"]
            except ResultsError:  # nothing was stored of it, or it is damaged since
                return None
            if seconds is not None and outcome.status in WELL:
                pair = outcome.cell.task, outcome.cell.estimator
                self._finished.setdefault(pair, []).append(seconds)
            return seconds

    def running(self) -> dict[str, Running]:
        """The cells that run at this moment, by name."""
        with self._lock:
            return {
                cell.name: Running((cell.task, cell.estimator), share, self._rate(key, share))
                for key, cell in self._left.items()
                if (share := self._share(cell)) is not None
            }

    def left(self, running: Sequence[Running]) -> float | None:
        """Seconds to the end, as far as can be known."""
        with self._lock:
            waiting = Counter((cell.task, cell.estimator) for cell in self._left.values())
            waiting.subtract(one.pair for one in running)
            jobs = max(self._jobs, len(running))
            return time_left(+waiting, running, self._finished, jobs)

    def line(self, outcome: Outcome, seconds: float | None) -> str:
        """An outcome in a line, with the time left where it says something of it."""
        line = f"[{self.ended}/{self.total}] {outcome.cell.name} {outcome.status}"
        if outcome.reason:
            line += f": {outcome.reason}"
        if outcome.status in ("stored", "skipped"):
            return line
        if seconds is not None:
            line += f" ({duration(seconds)})"
        return line + _about(self.left([*self.running().values()]), ", ")

    def _share(self, cell: Cell) -> float | None:
        """How far a cell is; None if it does not run, has only just begun to write, or runs on a
        cluster, where that is not known."""
        if self._on_cluster:
            return None
        try:
            return float(progress_file(self._results, cell).read_text())
        except (OSError, ValueError):
            return None

    def _rate(self, key: str, share: float) -> float | None:
        """Share done in a second since the cell was first looked at, or began another part."""
        now = time.monotonic()
        seen = self._seen.get(key)
        if seen is None or share < seen.share:
            seen = self._seen[key] = _Seen(now, share, share)
        seen.share = share
        moved, passed = share - seen.from_share, now - seen.since
        return moved / passed if moved > 0 and passed > 0 else None


def _about(seconds: float | None, before: str = "") -> str:
    """The time left in words; nothing where nothing is known or left."""
    return f"{before}about {duration(math.ceil(seconds))} left" if seconds else ""


@contextmanager
def _bars(tally: Tally, console: Console) -> Iterator[None]:
    """A bar for the grid and one for each running cell, until the context ends."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[done]}"),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bars = _Bars(tally, progress)
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(POLL_SECONDS):
                bars.draw()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()


class _Bars:
    """Bars that are drawn anew from a tally."""

    def __init__(self, tally: Tally, progress: Progress) -> None:
        self._tally, self._progress = tally, progress
        self._grid = progress.add_task("cells", total=tally.total, done="", left="")
        self._cells: dict[str, TaskID] = {}
        self.draw()

    def draw(self) -> None:
        """Show what is known now."""
        running = self._tally.running()
        ended = self._tally.ended
        self._progress.update(
            self._grid,
            completed=ended,
            done=f"{ended}/{self._tally.total}",
            left=_about(self._tally.left([*running.values()])),
        )
        for name in self._cells.keys() - running.keys():
            self._progress.remove_task(self._cells.pop(name))
        for name, one in running.items():
            if name not in self._cells:
                self._cells[name] = self._progress.add_task(name, total=1.0, done="", left="")
            left = (1 - one.share) / one.rate if one.rate else None
            self._progress.update(
                self._cells[name],
                completed=one.share,
                done=f"{one.share:.0%}",
                left=_about(left),
            )
