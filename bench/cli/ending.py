"""The end of a run: its table and report, how its cells ended, and the exit code."""

import sys
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from analysis.schema import KindName
from analysis.stored import ResultsError, as_typed
from bench.grid.claims import folder_claimed
from bench.printing import WELL, Bad, print_bad, print_frames, print_line
from bench.results.store import compact

if TYPE_CHECKING:
    from bench.cli.output import Output
    from bench.grid.runner import Outcome

_WRITERS = {
    "training": ("analysis.report", "write_report"),
    "gradients": ("analysis.gradients", "write_gradient_report"),
    "timing": ("analysis.timing", "write_timing_report"),
    "search": ("analysis.search", "write_search_report"),
}
"""What writes a report, and the module, which is imported only then, as that may fail too."""


def report_on(results: Path, kind: KindName, console: Console | None) -> Path | None:
    """Put all cells into one table, write the report, and print its tables.

    Runs that share the folder may see its last cell at the same time: they do so one by one.

    Args:
        results: the folder.
        kind: what its cells do.
        console: where to print; None for nowhere.
    Returns:
        The report's path; None where it could not be written, which is told.
    Raises:
        ResultsError: the folder can't be read.
    """
    with folder_claimed(results):
        compact(results)
        written = written_report(results, kind)
    if console is not None:
        _print_tables(results, kind, console)
    return written


def written_report(results: Path, kind: KindName | Literal["search"]) -> Path | None:
    """Write the report of a folder; its path, or None and a line where that fails: it can be
    written again, and what was run is stored.

    Raises:
        ResultsError: the folder can't be read.
    """
    module, write = _WRITERS[kind]
    try:
        written: Sequence[Path] = getattr(import_module(module), write)(results)
    except ResultsError:
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        again = as_typed("run_bench.py", "report", results)
        print(f"the report failed ({said}); to write it again: {again}", file=sys.stderr)
        return None
    return written[0]


def _print_tables(results: Path, kind: KindName, console: Console) -> None:
    """Print the tables of a report."""
    if kind == "training":
        from analysis.load import load_results
        from analysis.tables import summary

        print_frames(load_results(results), summary, console)
    elif kind == "gradients":
        from analysis.gradient_rows import pooled
        from analysis.gradients import quality_table
        from analysis.load import load_gradients

        print_frames(pooled(load_gradients(results)), quality_table, console)
    else:
        from analysis.load import load_timing
        from analysis.timing import times_table

        print_frames(load_timing(results), times_table, console)


def conclude(
    outcomes: "Sequence[Outcome]",
    results: Path,
    report: Path | None,
    output: "Output",
    console: Console,
) -> int:
    """Say how many cells ended how, and which did not end well; 1 if any.

    Args:
        outcomes: of all cells.
        results: their folder.
        report: where it is; None where there is none.
        output, console: what to tell, and where.
    """
    counts = Counter(outcome.status for outcome in outcomes)
    in_order = sorted(counts, key=lambda status: (status not in WELL, status))
    output.emit(
        "end", cells=len(outcomes), counts={status: counts[status] for status in in_order},
        results=str(results), report=None if report is None else str(report),
    )  # fmt: skip
    width = len(str(len(outcomes)))
    print_line(console, f"{len(outcomes)} cells:")
    for status in in_order:
        print_line(console, f"  {counts[status]:{width}} {status}")
    bad = [Bad(o.cell.name, o.status, o.reason) for o in outcomes if o.status not in WELL]
    if not output.quiet:  # which told of them as they came
        print_bad(console, bad, as_typed("run_bench.py", "status", results))
    if report is not None:
        print_line(console, f"tables and figures: {report}")
    return int(bool(bad))
