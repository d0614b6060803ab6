"""The report of a results folder: `report.md`, with tables and figures beside it."""

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.comparisons import (
    best_estimators,
    changes,
    choose_baseline,
    compared_for_best,
    differences,
    over_tasks,
    why_left_out,
    why_none_is_best,
)
from analysis.examples import examples_section, save_examples
from analysis.figures import save_figures
from analysis.files import write_whole
from analysis.load import (
    FLOOR,
    end_rows,
    final_rows,
    load_results,
)
from analysis.page import write_page
from analysis.scores import ENDED_BADLY, judged, score_frame, score_of
from analysis.statistics import LEAST_SEEDS, LEAST_SEEDS_IQM, seeds_needed
from analysis.stored import ResultsError, holds_search, read_grid, unlike
from analysis.tables import (
    COLUMNS,
    differences_table,
    markdown,
    metrics,
    over_tasks_table,
    seconds,
    summary,
    write_table,
)
from analysis.texts import in_markdown
from analysis.times import differing_code, told

MOST_LISTED = 50
"""Most failed cells that the report lists."""

FEW_SAMPLES = 10
"""Effective importance samples below which an NLL says less than the ELBO.

With n of them p(x) is off by about 1/√n of itself, at ten by a third. With fewer, one or two
samples have most of the weight, and the NLL lies above the truth by more for some estimators than
for others.
"""


def write_report(
    folder: Path, baseline: str | None = None, against: Path | None = None
) -> list[Path]:
    """Write `report.md`, `tables/` and `figures/` into a results folder; the paths of all files.

    Args:
        folder: what `--out` named.
        baseline: the estimator that the others are compared with; see `choose_baseline`.
        against: another folder, whose estimators these are compared with too.
    Raises:
        ResultsError: a folder can't be read or compared, or holds nothing of what it was asked for.
        UnknownBaselineError: there is no such estimator in it.
    """
    if against is not None and holds_search(against):  # whose trials have seen no test data
        raise ResultsError(f"{against} holds a search, not training: give another folder")
    table = load_results(folder).replace([np.inf, -np.inf], np.nan)
    if table.empty:
        raise ResultsError(f"{folder} holds none of the cells that it was asked for yet")
    reference = choose_baseline(table, baseline)
    parts = [
        f"# {in_markdown(folder.name)}",
        *overview(table, len(read_grid(folder))),
        *notes(table),
    ]
    report = _Report(folder / "tables", parts)
    for task in sorted(table["task"].unique()):
        _add_task(report, table[table["task"] == task], task, reference)
    if reference is not None:
        _add_comparison_over_tasks(report, end_rows(table), reference)
    if against is not None:
        _add_changes(report, end_rows(table), end_rows(load_results(against)), against)
    report.parts += _ended_badly(table)
    figures = save_figures(table, folder / "figures")
    if figures:
        report.parts += [
            "## Figures",
            "As PDF too, in `figures/`. `docs/REPORT.md` says how to read figures and tables.",
        ]
    report.parts += [f"![{path.stem}](figures/{path.name})" for path in figures]
    examples = save_examples(table, folder)
    report.parts += examples_section(examples, folder)
    path = folder / "report.md"
    write_whole(path, "\n\n".join(report.parts) + "\n")
    page = write_page(folder, table, notes(table), examples)
    return [path, page, *report.tables, *figures]


@dataclass
class _Report:
    """The paragraphs of a report, and the tables that are written beside it."""

    folder: Path
    parts: list[str]
    tables: list[Path] = field(default_factory=list)

    def add(
        self,
        stem: str,
        text: pd.DataFrame,
        first: str,
        numbers: pd.DataFrame,
        bold: dict[str, Collection[str]] | None = None,
    ) -> None:
        """Add a table, and write it; see `write_table`."""
        self.parts.append(markdown(text, first, bold))
        self.tables.append(write_table(self.folder / stem, text, first, numbers, bold))


def overview(table: pd.DataFrame, asked: int = 0) -> list[str]:
    """How many cells there are and what became of them, and what they were made by.

    Args:
        table: of results.
        asked: how many cells the folder was asked for, if that is known.
    """
    cells = table.drop_duplicates("key")
    statuses = judged(table)["status"].value_counts()
    counts = ", ".join(f"{n} {status}" for status, n in statuses.items())
    parts = [f"**{_counted(len(cells), 'cell')}**: {counts}."]
    if asked > len(cells):
        more = asked - len(cells)
        said = "was asked for and is" if more == 1 else "were asked for and are"
        parts.append(f"{more} more {said} not there yet.")
    states = cells[["commit", "dirty"]].drop_duplicates()
    commits = [
        f"{str(commit)[:10]}{' with changed files' if dirty else ''}"
        for commit, dirty in states.itertuples(index=False)
        if isinstance(commit, str)
    ]
    commands = "`" + cells["command"].dropna().astype(str) + "`"
    made = [
        f"Profile {_some(cells['profile'])}, {_some(cells['dataset'])}.",
        f"Commit {_some(pd.Series(commits))}." if commits else "",
        f"Made by {_some(commands)}." if len(commands) else "",
    ]
    return [" ".join(parts), " ".join(part for part in made if part)]


def notes(table: pd.DataFrame) -> list[str]:
    """What a reader has to know before comparing, in a sentence each."""
    found = []
    unsolved = table[table["unsolved"] > 0]
    if not unsolved.empty:
        cells = unsolved.drop_duplicates("key")
        names = ", ".join(sorted(cells["estimator"].unique()))
        found.append(
            f"In {_counted(len(cells), 'cell')} ({names}) a sparse mapping stopped short of its "
            f"tolerance, for up to {unsolved['unsolved'].max():.1%} of the rows of an evaluation."
        )
    mixed = table[table["on_vertex"].notna()]
    if not mixed.empty:
        names = ", ".join(sorted(mixed["estimator"].unique()))
        found.append(
            f"z of {names} may lie between assignments: ELBO, NLL, rate, distortion and loss are "
            "of that model, with a prior of its own. P(vertex) is how often a variable is at one "
            "of its values, P(edge) how often it is on the way between two of them, and vertices "
            "the mean number of values that it is between. Beside those of other estimators stand "
            "the accuracy and what is called rounded: they are of z at the nearest assignment."
        )
    ok = table[table["status"] == "ok"]
    if unequal := told(ok):
        found.append(
            f"{unequal}: times are compared between equals only, in a table of seconds split by "
            "circumstances, and figures over seconds show those of most cells."
        )
    codes = {}
    for task, cells in ok.drop_duplicates("key").groupby("task"):
        found += _notes_on(str(task), cells)
        codes[str(task)] = differing_code(cells)
    if several := [task for task, words in codes.items() if words]:
        words = dict.fromkeys(itertools.chain(*codes.values()))
        found.append(
            f"Cells of {', '.join(several)} differ in {', '.join(words)}: they are of several runs "
            "of the program, whose seconds may not be comparable."
        )
    return [*found, *_of_few_samples(table)]


def _notes_on(task: str, cells: pd.DataFrame) -> list[str]:
    """The same of the cells of one task that are ok, a row for each."""
    found = []
    differ = [name for name in ("profile", "dataset", "latent_size") if cells[name].nunique() > 1]
    if differ:
        found.append(f"Cells of {task} differ in {', '.join(differ)}: they can't be compared.")
    usual = cells["numerics"].mode().max()
    others = cells[cells["numerics"] != usual].groupby("numerics")["estimator"]
    if len(others):
        versions = "; ".join(f"{version} of {_some(names)}" for version, names in others)
        found.append(
            f"Cells of {task} are of several versions of the numerics, {versions}; {usual} of all "
            "others: docs/NUMERICS.md says what changed between them."
        )
    if said := unlike(cells["kernels"].dropna()):
        found.append(f"Cells of {task} are of {said}.")
    twice = int(cells.duplicated(["estimator", "seed"]).sum())
    if twice:
        found.append(
            f"{_counted(twice, 'cell')} of {task} {'are' if twice > 1 else 'is'} there again with "
            "other settings: those of one estimator and seed count once, as their mean, in "
            "comparisons."
        )
    return found


def _of_few_samples(table: pd.DataFrame) -> list[str]:
    """The tasks whose NLL rests on few importance samples for some estimator."""
    rows = final_rows(table).loc[lambda rows: rows["estimator"] != FLOOR]
    summed = rows["nll_effective_samples"].isin(2.0 ** rows["latent_size"])
    means = rows[~summed].groupby(["task", "estimator"])["nll_effective_samples"].mean()
    found = []
    for task, own in means.groupby("task"):
        if own.min() < FEW_SAMPLES:
            reach = " to ".join(dict.fromkeys([f"{own.min():.1f}", f"{own.max():.1f}"]))
            found.append(
                f"The NLL of {task} rests on {reach} effective importance samples, by estimator. "
                f"With fewer than {FEW_SAMPLES} it is too high, by more for some than for others: "
                "the ELBO says more then."
            )
    return found


def _add_task(report: _Report, rows: pd.DataFrame, task: str, baseline: str | None) -> None:
    """A task's tables, each with what it rests on."""
    ends = end_rows(rows)
    header = COLUMNS[score_of(final_rows(ends)).column][0]
    best = best_estimators(ends, task)
    report.parts.append(f"## {task}")
    report.add(task, summary(rows, task), task, metrics(ends, task), {header: best})
    frame = score_frame(ends, task).drop(columns=FLOOR, errors="ignore")
    if not frame.empty:
        said = f"Test scores, mean ± standard error over {_seeds(frame)}."
        report.parts.append(f"{said} {_what_is_bold(ends, task, header, bool(best))}")
    times = seconds(ends, task)
    if not times.empty:
        report.parts.append("Seconds of training by circumstances, with the number of cells:")
        report.add(f"{task}_seconds", times, task, times)
    if baseline is not None and not frame.empty:
        _add_differences(report, ends, task, baseline)


def _what_is_bold(ends: pd.DataFrame, task: str, header: str, anything: bool) -> str:
    """What bold means in a task's table and what it rests on, or why there is none."""
    if not anything:
        return f"Nothing is bold: {why_none_is_best(ends, task)}."
    seeds, estimators = compared_for_best(ends, task).shape
    said = (
        f"Bold: not ruled out as the best expected {header}, at 95% for all together, of "
        f"{estimators} estimators compared on {seeds} seeds."
    )
    left_out = ", ".join(f"{name} ({why})" for name, why in why_left_out(ends, task).items())
    return f"{said} Left out: {left_out}." if left_out else said


def _add_differences(report: _Report, ends: pd.DataFrame, task: str, baseline: str) -> None:
    """The table of differences to the baseline, or why there is none; nothing of it alone."""
    others = set(ends.loc[ends["status"] != "skipped", "estimator"]) - {baseline}
    if not others:
        return
    found = differences(ends, task, baseline)
    if found.empty:
        report.parts.append(f"Nothing has scores on {task} at the same seeds as `{baseline}`.")
        return
    shown = differences_table(found, score_of(final_rows(ends)))
    most, needed = int(found["seeds"].max()), seeds_needed(len(found))
    said = f"Minus `{baseline}` at the same seeds, with a 95% interval for each difference alone."
    if most < LEAST_SEEDS:
        said = f"Minus `{baseline}` at the same seeds; no interval below {LEAST_SEEDS} seeds."
    if most < needed:
        said += (
            f" No difference is called real: of {_counted(len(found), 'comparison')} none can be "
            f"significant with fewer than {needed} seeds, whatever the scores."
        )
        shown = shown.drop(columns=["p", "statement"])
    if left_out := sorted(others - set(found.index)):
        said += f" Without a score at any of its seeds: {', '.join(left_out)}."
    report.parts.append(said)
    numbers = found.assign(baseline=baseline)
    report.add(f"{task}_differences", shown, f"{task} − {baseline}", numbers)


def _add_comparison_over_tasks(report: _Report, ends: pd.DataFrame, baseline: str) -> None:
    """The table over all tasks with what it rests on; nothing if there is none."""
    found = over_tasks(ends, baseline)
    if found.empty:
        return
    seeds, tasks = int(found["seeds"].iloc[0]), int(found["tasks"].iloc[0])
    said = (
        f"Estimators that ran on all {tasks} tasks, over the {_counted(seeds, 'seed')} at which "
        "all of them ended; 95% intervals are over seeds. Interquartile means are of scores "
        "between 0, the worst mean on a task, and 1, the best. A run that did not end well takes "
        "the last rank and the lowest score."
    )
    if seeds < LEAST_SEEDS:
        said += f" No interval below {LEAST_SEEDS} seeds."
    elif seeds < LEAST_SEEDS_IQM:
        said += f" Intervals of interquartile means need {LEAST_SEEDS_IQM} seeds."
    report.parts += ["## Over all tasks", said]
    report.add("over_tasks", over_tasks_table(found, baseline), "", found)


def _add_changes(report: _Report, ends: pd.DataFrame, earlier: pd.DataFrame, against: Path) -> None:
    """The tables of differences to another folder."""
    report.parts.append(f"## Against {in_markdown(str(against))}")
    tasks = sorted(set(ends["task"]) & set(earlier["task"]))
    if not tasks:
        report.parts.append("The two folders have no task in common.")
    for task in tasks:
        found = changes(ends, earlier, task)
        if found.empty:
            report.parts.append(f"No estimator has scores on {task} at the same seeds in both.")
            continue
        shown = differences_table(found, score_of(final_rows(ends[ends["task"] == task])))
        said = (
            "Minus the same estimator there, at the same seeds, with a 95% interval for each "
            f"alone; a statement on {len(found)} of them takes {seeds_needed(len(found))} seeds."
        )
        here, there = (
            _some(final_rows(rows[rows["task"] == task])["numerics"]) for rows in (ends, earlier)
        )
        if here != there:
            said += (
                f" The numerics are of version {here} here and {there} there: differences may be "
                "theirs (docs/NUMERICS.md)."
            )
        report.parts.append(said)
        report.add(f"{task}_changes", shown, f"{task} − {against.name}", found)


def _ended_badly(table: pd.DataFrame) -> list[str]:
    """The cells that gave no score, with their reasons."""
    cells = judged(table)
    bad = cells[cells["status"].isin(ENDED_BADLY)].sort_values(["task", "estimator", "seed"])
    if bad.empty:
        return []
    listed = bad.head(MOST_LISTED).fillna("").set_index("task").astype(str)
    more = len(bad) - len(listed)
    left_out = [f"And {more} more."] if more > 0 else []
    return ["## Cells that did not end well", markdown(listed, "task"), *left_out]


def _seeds(frame: pd.DataFrame) -> str:
    """How many seeds the columns of a score frame have."""
    counts = frame.notna().sum()
    least, most = int(counts.min()), int(counts.max())
    return f"{least} to {most} seeds" if least < most else _counted(most, "seed")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _some(values: pd.Series, most: int = 3) -> str:
    """The different values, the first ones if they are many."""
    different = sorted(values.dropna().astype(str).unique())
    more = f" and {len(different) - most} more" if len(different) > most else ""
    return ", ".join(different[:most]) + more
