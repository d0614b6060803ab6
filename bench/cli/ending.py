"""The end of a run: its table and report, how its cells ended, and the exit code."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from analysis.schema import KindName
from analysis.stored import as_typed
from bench.grid.claims import folder_claimed
from bench.printing import WELL, Bad, print_bad, print_frames, print_line
from bench.results.store import compact

if TYPE_CHECKING:
    from bench.cli.output import Output
    from bench.grid.runner import Outcome


def report_on(results: Path, kind: KindName, console: Console | None) -> Path:
    """Put all cells into one table, write the report, and print its tables; the report's path.

    Runs that share the folder may see its last cell at the same time: they do so one by one.

    Args:
        results: the folder.
        kind: what its cells do.
        console: where to print; None for nowhere.
    Raises:
        ResultsError: the folder can't be read.
    """
    from analysis.gradient_rows import pooled
    from analysis.gradients import quality_table, write_gradient_report
    from analysis.load import load_gradients, load_results, load_timing
    from analysis.report import write_report
    from analysis.tables import summary
    from analysis.timing import times_table, write_timing_report

    write = {
        "training": write_report,
        "gradients": write_gradient_report,
        "timing": write_timing_report,
    }
    with folder_claimed(results):
        compact(results)
        written = write[kind](results)
    if console is not None:
        if kind == "training":
            print_frames(load_results(results), summary, console)
        elif kind == "gradients":
            print_frames(pooled(load_gradients(results)), quality_table, console)
        else:
            print_frames(load_timing(results), times_table, console)
    return written[0]


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
        report: where it is; None where nothing is stored to report on.
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
