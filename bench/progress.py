"""What a user sees while a grid runs: a bar for the grid and one for each running cell."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from bench.cells import Cell
from bench.runner import Outcome, progress_file

POLL_SECONDS = 0.25


class Done(Protocol):
    """Told of each outcome as it comes."""

    def __call__(self, outcome: Outcome) -> None: ...


@contextmanager
def shown(cells: Sequence[Cell], results: Path, console: Console) -> Iterator[Done]:
    """Show the progress of these cells: bars on a terminal, else a line for each outcome."""
    if not console.is_terminal:
        yield _Lines(len(cells), console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        grid = progress.add_task("cells", total=len(cells))
        stop = threading.Event()
        watcher = threading.Thread(target=_watch, args=(cells, results, progress, stop))
        watcher.start()

        def done(outcome: Outcome) -> None:
            progress.advance(grid)
            if outcome.status not in {"ok", "stored", "skipped"}:
                line = f"{outcome.cell.name}: {outcome.status}: {outcome.reason}"
                progress.console.print(line, markup=False, highlight=False)

        try:
            yield done
        finally:
            stop.set()
            watcher.join()


class _Lines:
    def __init__(self, total: int, console: Console) -> None:
        self._count, self._total, self._console = 0, total, console

    def __call__(self, outcome: Outcome) -> None:
        self._count += 1
        reason = f": {outcome.reason}" if outcome.reason else ""
        line = f"[{self._count}/{self._total}] {outcome.cell.name} {outcome.status}{reason}"
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)


def _watch(cells: Sequence[Cell], results: Path, progress: Progress, stop: threading.Event) -> None:
    """Keep a bar for each cell whose progress file is there."""
    files = {progress_file(results, cell): cell for cell in cells}
    bars: dict[Path, TaskID] = {}
    while not stop.wait(POLL_SECONDS):
        there = set((results / "running").glob("*")) & files.keys()
        for path in bars.keys() - there:
            progress.remove_task(bars.pop(path))
        for path in there:
            if path not in bars:
                bars[path] = progress.add_task(files[path].name, total=100)
            try:
                share = float(path.read_text() or 0)
            except (OSError, ValueError):  # removed, or half written
                continue
            progress.update(bars[path], completed=round(100 * share))
