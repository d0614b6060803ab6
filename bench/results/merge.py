"""Results folders from several machines, or of several runs, joined into one.

Nothing is written before all of it is known to stand together. `grid.json` comes first, then cells,
each whole or not at all: after a merge that was interrupted some are missing, and it is run again.
"""

import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa

from analysis.files import written_whole
from analysis.schema import CIRCUMSTANCES, KindName, kind_with
from analysis.stored import (
    GRID,
    Asked,
    cell_files,
    check_places,
    holds_search,
    no_results,
    read_cell,
    read_grid,
    unlike,
)
from bench.errors import UserError
from bench.results.store import write_grid

Grids = Mapping[Path, Sequence[Asked]]
"""What each folder was asked for."""


@dataclass(frozen=True)
class _Stored:
    """A cell in one of the folders."""

    folder: Path
    file: Path
    name: str
    status: str
    numerics: int
    kernels: str | None
    kind: KindName


@dataclass(frozen=True)
class Merged:
    """What came of a merge."""

    kind: KindName
    taken: dict[Path, int]
    """How many cells come from which folder."""
    twice: int
    """Cells that are ok in several folders."""
    kernels: Collection[str | None]
    """What the cells were computed with."""
    better: list[str]
    """Cells that are ok, but did not end well in an earlier folder."""

    def lines(self) -> Iterator[str]:
        """What there is to tell of it."""
        for folder, count in self.taken.items():
            yield f"{count} cells from {folder}"
        if self.twice:
            equal = "" if unlike(self.kernels) else " with equal numbers"
            yield f"{self.twice} are in several folders{equal}: the first is kept"
        if said := unlike(self.kernels):
            yield f"cells are of {said}"
        if self.better:
            yield f"ok in a later folder alone, and taken from there: {', '.join(self.better)}"


def merge_folders(sources: Sequence[Path], out: Path) -> Merged:
    """Join results folders into one: what was asked for, its cells and their examples.

    Args:
        sources: the folders, two or more.
        out: the folder to write: a new one, or that of the same merge before.
    Raises:
        UserError: they can't stand together, a cell has other numbers in another folder, or `out`
            holds something else.
        ResultsError: a folder or a cell can't be read.
    """
    distinct = {source.resolve(): source for source in sources}
    if len(distinct) < 2:
        raise UserError("merge: give two results folders at least")
    if out.resolve() in distinct:
        raise UserError(f"--out {out} is one of the folders to merge: give another")
    grids = {source: _grid(source) for source in distinct.values()}
    keys = {asked.key for grid in grids.values() for asked in grid}
    stored = [_cells(source, keys) for source in grids]
    kind = _one_kind([cell for cells in stored for cell in cells.values()])
    joined = _joined(grids)
    _check_out(out, joined)
    found = [cells for key in joined if (cells := [own[key] for own in stored if key in own])]
    best = [_best(cells) for cells in found]
    # What a merge before has written there, and a run has mended since, is not to be lost.
    there = _cells(out, keys)
    kept = [_best([cell, *filter(None, [there.get(cell.file.stem)])]) for cell in best]
    write_grid(out, [*joined.values()])
    for cell in kept:
        if cell.folder != out:
            _copy(cell, out)
    sources_of = Counter(cell.folder for cell in best)
    return Merged(
        kind,
        taken={source: sources_of[source] for source in grids},
        twice=sum(sum(cell.status == "ok" for cell in cells) > 1 for cells in found),
        kernels={cell.kernels for cells in found for cell in cells},
        better=[
            cell.name
            for cell, cells in zip(best, found, strict=True)
            if cell.status == "ok" != cells[0].status
        ],
    )


def _grid(folder: Path) -> list[Asked]:
    """What a folder was asked for, which has to be known."""
    if holds_search(folder):
        raise UserError(
            f"{folder} holds a search: machines share one through --storage, see docs/TUNING.md"
        )
    if not folder.is_dir():
        raise no_results(folder)
    if not (folder / GRID).is_file():
        raise UserError(
            f"{folder} has no {GRID}, which says what it was asked for: name a results folder, or "
            "run the command that made it again"
        )
    asked = read_grid(folder)
    check_places(cell_files(folder), asked)
    return asked


def _cells(folder: Path, keys: set[str]) -> dict[str, _Stored]:
    """The cells of a folder that have these keys."""
    return {file.stem: _stored(folder, file) for file in cell_files(folder) if file.stem in keys}


def _stored(folder: Path, file: Path) -> _Stored:
    table = read_cell(file)
    kind = kind_with(table.column_names).name
    names = ["task", "estimator", "seed", "status", "numerics", "kernels"]
    last = table.select(names).to_pylist()[-1]
    name = f"{last['task']}/{last['estimator']}/{last['seed']}"
    kept = (last["status"], last["numerics"], last["kernels"])
    return _Stored(folder, file, name, *kept, kind)


def _one_kind(cells: Sequence[_Stored]) -> KindName:
    """What all cells do.

    Raises:
        UserError: there is none, or one does something else, or is of other numerics.
    """
    if not cells:
        raise UserError("merge: none of these folders holds a cell yet")
    first = cells[0]
    for cell in cells:
        if cell.kind != first.kind:
            raise UserError(
                f"{first.folder} holds {first.kind} and {cell.folder} {cell.kind}: keep them in two"
            )
        if cell.numerics != first.numerics:
            raise UserError(
                f"{cell.name} in {cell.folder} is of numerics {cell.numerics}, {first.name} in "
                f"{first.folder} of {first.numerics}: run the older ones again"
            )
    return first.kind


def _joined(grids: Grids) -> dict[str, Asked]:
    """What all folders were asked for, by key.

    Raises:
        UserError: cells of two folders can't stand in one.
    """
    names: dict[str, tuple[Asked, Path]] = {}
    tasks: dict[str, tuple[Asked, Path]] = {}
    for folder, grid in grids.items():
        for asked in grid:
            other, where = tasks.setdefault(asked.task, (asked, folder))
            if other.basis != asked.basis:
                raise UserError(
                    f"{asked.cell} in {folder} can't stand beside {other.cell} in {where}: other "
                    "data, model, budget of training, or evaluation"
                )
            other, where = names.setdefault(asked.cell, (asked, folder))
            if other.key != asked.key:
                raise UserError(
                    f"{asked.cell} has other settings, threads or device in {folder} than in "
                    f"{where}: keep them in two folders"
                )
    return {asked.key: asked for asked, _ in names.values()}


def _check_out(out: Path, joined: Mapping[str, Asked]) -> None:
    """Refuse a folder that holds anything but what the merge will make."""
    if out.is_file():
        raise UserError(f"--out {out} is a file: give a folder")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / GRID).is_file():
        raise UserError(f"--out {out} holds something else: give a new folder")
    strange = [asked.cell for asked in read_grid(out) if asked.key not in joined]
    strange += [str(file) for file in cell_files(out) if file.stem not in joined]
    if strange:
        raise UserError(f"--out {out} holds {strange[0]}, which is in none of these: give another")


def _best(cells: Sequence[_Stored]) -> _Stored:
    """The first of equal cells that is ok, or else the first.

    Raises:
        UserError: two that are ok have other numbers, from the same kernels.
    """
    ok = [cell for cell in cells if cell.status == "ok"]
    for one, other in combinations(ok, 2):
        if not unlike((one.kernels, other.kernels)):
            _check_equal(one, other)
    return (ok or cells)[0]


def _check_equal(one: _Stored, other: _Stored) -> None:
    """Refuse cells whose numbers differ in any bit; their circumstances may, and what an earlier
    version of the columns did not have."""
    left, right = (read_cell(cell.file) for cell in (one, other))
    later = kind_with(left.column_names).later
    lacking = {name for name in later for t in (left, right) if t[name].null_count == len(t)}
    if len(left) != len(right):
        found = f"{len(left)} rows in {one.folder} and {len(right)}"
    elif differing := _first_difference(left, right, CIRCUMSTANCES | lacking):
        name, a, b = differing
        found = f"{name} {a} in {one.folder} and {b}"
    else:
        return
    raise UserError(
        f"{one.name} has {found} in {other.folder}: it must be the same; delete {other.file}, or "
        "the other one"
    )


def _first_difference(
    left: pa.Table, right: pa.Table, besides: Collection[str]
) -> tuple[str, Any, Any] | None:
    """The first column besides some that differs between rows, and its values there; NaN is NaN."""
    for one, other in zip(left.to_pylist(), right.to_pylist(), strict=True):
        for name in one:
            a, b = one[name], other[name]
            if name not in besides and a != b and not (a != a and b != b):
                return name, a, b
    return None


def _copy(cell: _Stored, out: Path) -> None:
    """Copy a cell with its examples, in place of any that are there."""
    place = cell.file.relative_to(cell.folder)
    examples = Path("examples", *place.parts[1:]).with_suffix(".npz")
    if (cell.folder / examples).is_file():
        _copy_file(cell.folder / examples, out / examples)
    else:
        (out / examples).unlink(missing_ok=True)
    _copy_file(cell.file, out / place)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as content, written_whole(target) as file:
        shutil.copyfileobj(content, file)
