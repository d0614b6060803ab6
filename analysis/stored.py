"""Results folders as they are on disk: cells, each checked as it is read, and what was asked for.

Without pandas, which takes longer to import than all of this takes.
"""

import json
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from analysis.rows import foreign, in_order, repeated
from analysis.schema import NAME, PARTITIONS, REQUIRED, KindName, kind_with
from analysis.texts import command_line, without_secrets

_HERE = fs.LocalFileSystem()  # else pyarrow takes the path "a:b" for an address

CELLS = "task=*/estimator=*/[!.]*.parquet"
"""Where cells are, in the folder `cells` of a results folder."""

PATIENCE = 3
"""How often a folder is read again whose files change while it is read."""

GRID = "grid.json"
"""A file of a results folder: which cells it was asked for."""

TRIALS = "trials.parquet"
"""A file of a results folder: the trials of a search, written at its end."""

JOURNAL = "studies.journal"
"""A file of a results folder: the studies of a search, unless they are in a database."""

TABLE = "table.parquet"
"""A file of a results folder: all rows of the grid that it was asked for."""


class ResultsError(Exception):
    """A results folder that can't be read; the message is one line."""


class OtherSchemaError(ResultsError):
    """A file of a schema that can't be read."""


@dataclass(frozen=True)
class Asked:
    """A cell that a results folder was asked for."""

    key: str
    cell: str
    """Its name: task/estimator/seed, and the setting that was turned, if one was."""
    task: str
    basis: str
    """A hash of what cells of a task must have in common to be compared."""
    command: str = ""
    """The command line that asked for it; empty in folders of earlier versions."""

    def __post_init__(self) -> None:
        """Raises ValueError where a file holds anything else."""
        if not all(isinstance(part, str) for part in astuple(self)) or self.cell.count("/") < 2:
            raise ValueError(f"no cell: {self}")

    @property
    def pair(self) -> tuple[str, str]:
        """Task and estimator."""
        task, estimator, _ = self.cell.split("/", 2)
        return task, estimator


def unlike(kernels: Iterable[str | None]) -> str:
    """What is to be said of cells that were computed with these kernels, as far as they are known;
    nothing where with one."""
    known = sorted({one for one in kernels if one})
    if len(known) < 2:
        return ""
    return f"unlike kernels ({'; '.join(known)}): they can be compared, but differ in last bits"


def read_grid(folder: Path) -> list[Asked]:
    """What a results folder was asked for; nothing where that was not noted: then all that is
    stored counts.

    Raises:
        ResultsError: the file is damaged.
    """
    path = folder / GRID
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig")) if path.exists() else []
        if not isinstance(entries, list):
            raise TypeError("no list")
        return [Asked(**entry) for entry in entries]
    except (ValueError, TypeError, RecursionError) as error:
        raise ResultsError(f"{path} is damaged: delete it, and run the same command") from error


def holds_results(folder: Path) -> bool:
    """Whether there are any cells in a folder."""
    return any((folder / "cells").glob(CELLS))


def holds_asked(folder: Path) -> bool:
    """Whether any cell is stored that a folder was asked for, so that there is something to report.

    Raises:
        ResultsError: `grid.json` is damaged, or a cell is out of place.
    """
    keys = {asked.key for asked in read_grid(folder)}
    return any(not keys or file.stem in keys for file in cell_files(folder))


def holds_search(folder: Path) -> bool:
    """Whether a folder is that of a search, from its first trial on."""
    return any((folder / name).exists() for name in (TRIALS, JOURNAL))


def cell_files(folder: Path) -> list[Path]:
    """The files of all cells in a results folder.

    Raises:
        ResultsError: a parquet file is where no cell belongs, so that it would be overlooked; or
            the name of a folder is that of no task or estimator.
    """
    cells = folder / "cells"
    files = sorted(cells.glob(CELLS))
    for stray in sorted({*cells.rglob("[!.]*.parquet")} - {*files}):
        if any(part.startswith(".") for part in stray.relative_to(cells).parts):
            continue  # copies that an editor or a synchronised folder keeps
        raise ResultsError(
            f"{stray} is not in a folder task=…/estimator=… of {cells}: move it there, or elsewhere"
        )
    for file in files:
        for name in partitions(file):
            if not NAME.fullmatch(name):
                raise ResultsError(f"{file} is in a folder of {name!r}, no name: remove it")
    return files


def check_places(files: Iterable[Path], asked: Iterable[Asked]) -> None:
    """Refuse cells in the folder of another task or estimator, whose name they would be shown by.

    Raises:
        ResultsError: there is one, or one is there twice.
    """
    pairs = {one.key: one.pair for one in asked}
    seen: dict[str, Path] = {}
    for file in files:
        if (other := seen.setdefault(file.stem, file)) is not file:
            raise ResultsError(f"{file} is the cell of {other}: remove one of them")
        pair = pairs.get(file.stem, partitions(file))
        if pair != partitions(file):
            place = Path(f"task={pair[0]}", f"estimator={pair[1]}")
            raise ResultsError(f"{file} belongs in {file.parents[2] / place}: move it there")


def read_cells(folder: Path) -> pa.Table:
    """The rows of a results folder, in the present schema, with columns task and estimator.

    Cells that were asked for with other settings since stay in the folder and are left out here.

    Args:
        folder: what `--out` named: it holds `cells/`, or else `table.parquet`.
    Raises:
        ResultsError: there are no results, or they are damaged, or of another schema.
    """
    for _ in range(PATIENCE):
        files = cell_files(folder)
        try:
            return _read_once(folder, files)
        except ResultsError:
            if files == cell_files(folder):
                raise  # else cells came or went meanwhile, as they do while a grid runs
    return _read_once(folder, cell_files(folder))


def _read_once(folder: Path, files: list[Path]) -> pa.Table:
    """The rows of a folder that has these files of cells."""
    if not files:
        if (folder / TABLE).is_file():
            return read_table(folder / TABLE)
        raise no_results(folder)
    asked = read_grid(folder)
    check_places(files, asked)
    tables = [read_cell(file) for file in files]
    if any(not table.schema.equals(tables[0].schema) for table in tables):
        kinds = sorted({kind_with(table.column_names).name for table in tables})
        raise ResultsError(f"{folder} holds {' and '.join(kinds)}: keep them in folders apart")
    table = pa.concat_tables(tables)
    if asked:
        keys = [one.key for one in asked]
        table = table.filter(pc.is_in(table["key"], pa.array(keys, pa.string())))
    return table


def no_results(folder: Path) -> ResultsError:
    """The error for a path that holds no results, by what it is."""
    if folder.is_file():
        return ResultsError(f"{folder} is a file: name the results folder, which --out named")
    if not folder.exists():
        return ResultsError(f"there is no folder {folder}")
    noted = next((asked.command for asked in read_grid(folder) if asked.command), None)
    first = (
        f"a grid with --out {shlex.quote(str(folder))}" if noted is None else into(noted, folder)
    )
    return ResultsError(f"{folder} holds no results: first run {first}")


def into(command: str, folder: Path, without: Sequence[str] = ()) -> str:
    """A command line that goes on in this folder, which may have been moved or merged since.

    Without `--force` and `--retry`: it runs what is not well, and that alone. Without `--json` and
    `--quiet`, as it is for a person.

    Args:
        command: the one that was noted.
        folder: where to go on.
        without: more options to leave out, with their values.
    """
    try:
        words = shlex.split(command)
    except ValueError:  # of a version that did not quote
        return without_secrets(command)
    kept = []
    rest = iter(words)
    for word in rest:
        option, equals, _ = word.partition("=")
        if option in ("--out", "--retry", *without):
            if not equals:  # its value is the next word
                next(rest, None)
        elif option not in ("--force", "--json", "--quiet"):
            kept.append(word)
    return as_typed(*kept, "--out", folder)


def as_typed(*words: object) -> str:
    """A command line to paste into a shell, of which the first word is `run_bench.py`; without
    secrets, which are to be put in again."""
    return command_line(["python", *map(str, words)])


def read_cell(file: Path) -> pa.Table:
    """The rows of one cell, in the present schema, with columns task and estimator.

    Raises:
        ResultsError: it is damaged, of another schema, or no cell's.
    """
    table = rows_of_cell(file)
    for name, value in zip(PARTITIONS, partitions(file), strict=True):
        table = table.append_column(name, pa.repeat(value, len(table)))
    return table


def rows_of_cell(file: Path) -> pa.Table:
    """The same without columns task and estimator, whose values pyarrow can't make without
    importing pandas."""
    table = _checked(_read(file), file, in_path=True)
    if pc.unique(table["key"]).to_pylist() != [file.stem]:
        raise ResultsError(f"{file} holds another cell than its name says: move it elsewhere")
    return table


def partitions(file: Path) -> tuple[str, str]:
    """Task and estimator of a cell, from the path of its file."""
    task, estimator = (part.partition("=")[2] for part in file.parts[-3:-1])
    return task, estimator


def read_table(file: Path) -> pa.Table:
    """The rows of a `table.parquet`, in the present schema.

    Raises:
        ResultsError: it is damaged, of another schema, or not of ours.
    """
    return _checked(_in_our_types(_read(file)), file, in_path=False)


def _in_our_types(table: pa.Table) -> pa.Table:
    """What pandas has read and written again, as rows were picked from it: it has a type of its own
    for text, takes whole numbers of which some are missing for others, and adds its index."""
    table = table.select([n for n in table.column_names if not n.startswith("__index_level_")])
    ours = {field.name: field.type for field in kind_with(table.column_names).whole}
    for place, field in enumerate(table.schema):
        with suppress(pa.ArrowException):  # then it is refused
            column = table[place].cast(ours.get(field.name, field.type))
            table = table.set_column(place, field.name, column)
    return table


def _read(file: Path) -> pa.Table:
    try:
        return pq.ParquetFile(str(file), filesystem=_HERE).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        reason = "is damaged: delete it, and run the same command to make it again"
        raise ResultsError(f"{file} {reason}") from error


def _checked(table: pa.Table, file: Path, in_path: bool) -> pa.Table:
    """The rows in the present schema and in order, after a look at every column.

    Args:
        table: as it is stored.
        file: where.
        in_path: whether task and estimator stand in its path.
    Raises:
        OtherSchemaError: they are of one that can't be read.
        ResultsError: their columns are not what it says, or one is there twice.
    """
    place = table.schema.get_field_index("schema_version")
    if place < 0 or table.schema.types[place] != pa.int64():
        raise ResultsError(f"{file} is no results file of ours: move it elsewhere")
    kind = kind_with(table.column_names)
    versions = pc.unique(table["schema_version"].drop_null()).to_pylist()
    missing = kind.missing(versions[0]) if len(versions) == 1 else None
    if missing is None:
        raise OtherSchemaError(
            f"{file} has results of schema {', '.join(map(str, versions)) or 'none'}, this is "
            f"{kind.version}: read them with the commit that wrote them, or give another --out"
        )
    for name in missing:
        table = table.append_column(name, pa.nulls(len(table), kind.whole.field(name).type))
    columns = kind.columns if in_path else kind.whole
    wrong = _wrong(table, columns)
    if wrong is not None:
        raise ResultsError(f"{file} {wrong}: move it elsewhere, and run the same command")
    if missing:
        present = pa.repeat(kind.version, len(table))
        table = table.set_column(place, "schema_version", present)
    if said := repeated(table, kind):
        raise ResultsError(f"{file} {said}")
    return in_order(table.select(columns.names), kind)


def _wrong(table: pa.Table, columns: pa.Schema) -> str | None:
    """What keeps a table from having these columns; None if nothing does."""
    if not table.schema.equals(columns):  # in this order too: else a look at each
        types = dict(zip(table.column_names, table.schema.types, strict=True))
        for field in columns:
            found = types.pop(field.name, None)
            if found is None:
                return f"has no column {field.name}"
            if found != field.type:
                return f"has {found} in the column {field.name}, not {field.type}"
        if types:
            return f"has a column {min(types)} that we don't know"
    required = [name for name in (*REQUIRED, *PARTITIONS) if name in columns.names]
    lacking = [name for name in required if table[name].null_count]
    return f"has rows without {lacking[0]}" if lacking else foreign(table)


def kind_of(folder: Path) -> KindName | Literal["search"]:
    """What a results folder holds.

    Raises:
        ResultsError: there are no results, or they are damaged, or of another schema.
    """
    if holds_search(folder):
        return "search"
    return kind_with(read_cells(folder).column_names).name
