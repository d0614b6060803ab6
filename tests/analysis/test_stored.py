"""Reading results folders: what can't be read is said in a line, and never misread."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis import stored
from analysis.comparisons import changes
from analysis.load import (
    end_rows,
    flatten_hyperparameters,
    load_gradients,
    load_results,
    load_timing,
)
from analysis.schema import GRADIENTS, TIMING, TRAINING, Kind
from analysis.stored import ResultsError, kind_of, read_grid
from tests.analysis.synthetic import as_stored, ask, grid, write, write_cells

NAMES = ["sfe", "dense"]
NOW = TRAINING.version


@pytest.fixture
def table() -> pd.DataFrame:
    return grid(["game"], NAMES, 2)


def as_rows_of(kind: Kind, table: pd.DataFrame) -> pd.DataFrame:
    """Rows of training as those of another kind, told apart as these are."""
    numbers = table.groupby("key").cumcount()
    return table.assign(
        schema_version=kind.version, group="scores", share=numbers.astype(float), repetition=numbers
    )


def test_cells_and_their_table_are_the_same(table: pd.DataFrame, tmp_path: Path) -> None:
    write(table, tmp_path / "table")
    write_cells(table, tmp_path / "cells")
    index = ["estimator", "seed", "split", "step"]
    one, two = (
        load_results(tmp_path / name).sort_values(index, ignore_index=True)
        for name in ("table", "cells")
    )
    pd.testing.assert_frame_equal(one, two)
    assert set(one.columns) == {*TRAINING.columns.names, "task", "estimator"}


def test_cells_that_are_not_asked_for_are_left_out(table: pd.DataFrame, tmp_path: Path) -> None:
    """The folder keeps them; what counts is what it was asked for."""
    write_cells(table, tmp_path)
    ask(tmp_path, "gamesfe0", "later")
    assert set(load_results(tmp_path)["key"]) == {"gamesfe0"}


def test_a_grid_of_no_cells_says_nothing_of_what_counts(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    """As a folder without one: all that is stored."""
    write_cells(table, tmp_path)
    ask(tmp_path)
    assert len(load_results(tmp_path)) == len(table)


@pytest.mark.parametrize(
    "content",
    [
        '[{"key"',
        '[{"key": "old"}]',
        "[3]",
        "3",
        '{"key": "old"}',
        "{}",
        pytest.param("[" * 100_000, id="deep"),
        b"\xff",
        '[{"key": "k", "cell": "nameless", "task": "game", "basis": "one"}]',
        '[{"key": 3, "cell": "game/sfe/0", "task": "game", "basis": "one"}]',
    ],
)
def test_a_damaged_grid_is_said_in_a_line(content: str | bytes, tmp_path: Path) -> None:
    data = content.encode() if isinstance(content, str) else content
    (tmp_path / "grid.json").write_bytes(data)
    with pytest.raises(ResultsError, match=r"grid\.json is damaged: delete it") as error:
        read_grid(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "back"),
    [(TRAINING, 1), (TRAINING, 2), (TRAINING, 3), (GRADIENTS, 1), (GRADIENTS, 2), (TIMING, 1)],
)
def test_an_earlier_version_is_read_with_nulls_for_what_came_since(
    kind: Kind, back: int, table: pd.DataFrame, tmp_path: Path
) -> None:
    names = kind.missing(kind.version - back)
    assert names is not None
    rows = as_rows_of(kind, table).assign(schema_version=kind.version - back)
    older = as_stored(rows, kind).drop_columns(names)
    pq.write_table(older, tmp_path / "table.parquet")
    load = {TRAINING: load_results, GRADIENTS: load_gradients, TIMING: load_timing}[kind]
    found = load(tmp_path)
    assert found[names].isna().all(axis=None)
    assert (found["schema_version"] == kind.version).all()  # as they are handed on
    assert len(found) == len(table)


def test_versions_stand_side_by_side_in_a_folder(table: pd.DataFrame, tmp_path: Path) -> None:
    """A grid that is gone on with after the schema was raised is read whole."""
    first, *_ = write_cells(table, tmp_path)
    names = TRAINING.missing(TRAINING.version - 1)
    older = pq.read_table(first, partitioning=None).drop_columns(names)
    place = older.column_names.index("schema_version")
    version = pa.array([TRAINING.version - 1] * len(older), pa.int64())
    pq.write_table(older.set_column(place, "schema_version", version), first)
    assert len(load_results(tmp_path)) == len(table)


Change = Callable[[pa.Table], pa.Table]


def changed(name: str, values: list[object], kind: pa.DataType) -> Change:
    """A column replaced."""

    def change(table: pa.Table) -> pa.Table:
        place = table.column_names.index(name)
        return table.set_column(place, name, pa.array(values * len(table), kind))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            changed("schema_version", [99], pa.int64()),
            f"has results of schema 99, this is {NOW}: read",
        ),
        (
            changed("schema_version", [1], pa.int64()),
            f"has results of schema 1, this is {NOW}:",
        ),
        (
            changed("schema_version", [None], pa.int64()),
            f"has results of schema none, this is {NOW}",
        ),
        (changed("schema_version", ["3"], pa.string()), "is no results file of ours: move it"),
        (changed("accuracy", ["0.5"], pa.string()), "has string in the column accuracy, not doub"),
        (changed("seed", [0.0], pa.float64()), "has double in the column seed, not int64: move"),
        (changed("status", [None], pa.string()), "has rows without status: move it elsewhere"),
        (changed("key", ["other"], pa.string()), "holds another cell than its name says: move"),
        (lambda t: t.drop_columns(["elbo"]), "has no column elbo: move it elsewhere"),
        (lambda t: t.drop_columns(["packages"]), "has no column packages: move it elsewhere"),
        (lambda t: t.append_column("mine", t["seed"]), "has a column mine that we don't know"),
        (
            lambda t: changed("schema_version", [GRADIENTS.version], pa.int64())(t).append_column(
                "group", t["split"]
            ),
            "has no column knob: move it elsewhere",
        ),
        (lambda t: t.slice(0, 0), f"has results of schema none, this is {NOW}"),
        (lambda t: pa.table({"theirs": [1]}), "is no results file of ours: move it elsewhere"),
    ],
)
def test_a_file_whose_columns_are_wrong_is_named(
    change: Change, words: str, table: pd.DataFrame, tmp_path: Path
) -> None:
    path = write_cells(table, tmp_path)[2]
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)
    with pytest.raises(ResultsError) as error:
        load_results(tmp_path)
    assert str(error.value).startswith(f"{path} {words}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 and no more PAR1", b"{}"])
def test_a_file_that_is_no_parquet_is_named(
    content: bytes, table: pd.DataFrame, tmp_path: Path
) -> None:
    path = write_cells(table, tmp_path / "cells")[3]
    compacted = write(table, tmp_path / "table") / "table.parquet"
    for file, folder in ((path, "cells"), (compacted, "table")):
        file.write_bytes(content)
        with pytest.raises(ResultsError) as error:
            load_results(tmp_path / folder)
        assert str(error.value) == (
            f"{file} is damaged: delete it, and run the same command to make it again"
        )


def test_a_table_that_pandas_wrote_again_is_read(table: pd.DataFrame, tmp_path: Path) -> None:
    """It makes other types of text and of whole numbers of which some are missing."""
    table.loc[table["seed"] == 1, "examples"] = None
    write(table, tmp_path)
    before = load_results(tmp_path)
    path = tmp_path / "table.parquet"
    picked = pd.read_parquet(path).query("estimator == 'sfe'")
    picked.to_parquet(path)
    assert pq.read_schema(path).types != as_stored(table).schema.types
    expected = before[before["estimator"] == "sfe"].reset_index(drop=True)
    pd.testing.assert_frame_equal(load_results(tmp_path), expected)
    picked.assign(step=0.5).to_parquet(path)
    with pytest.raises(ResultsError, match="has double in the column step, not int64"):
        load_results(tmp_path)


def test_a_table_without_its_partitions_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    pq.write_table(as_stored(table).drop_columns(["task"]), tmp_path / "table.parquet")
    with pytest.raises(ResultsError, match=r"table\.parquet has no column task: move it elsewhere"):
        load_results(tmp_path)


@pytest.mark.parametrize("where", ["", "task=game", "estimator=sfe/task=game", "task=game/e=f/g"])
def test_a_cell_outside_its_partitions_is_named(
    where: str, table: pd.DataFrame, tmp_path: Path
) -> None:
    path = write_cells(table, tmp_path)[0]
    stray = tmp_path / "cells" / where / path.name
    stray.parent.mkdir(parents=True, exist_ok=True)
    path.rename(stray)
    with pytest.raises(ResultsError, match="is not in a folder task=…/estimator=… of") as error:
        load_results(tmp_path)
    assert str(error.value).startswith(str(stray))


def test_a_file_that_is_being_written_is_no_cell(table: pd.DataFrame, tmp_path: Path) -> None:
    path = write_cells(table, tmp_path)[0]
    path.with_name(f".{path.name}.123").write_bytes(b"PAR1")
    assert load_results(tmp_path)["key"].nunique() == 4


def test_kinds_are_told_apart(table: pd.DataFrame, tmp_path: Path) -> None:
    gradients = as_rows_of(GRADIENTS, table)
    write(table, tmp_path / "training")
    write(gradients, tmp_path / "gradients", GRADIENTS)
    assert [kind_of(tmp_path / name) for name in ("training", "gradients")] == [
        "training", "gradients",
    ]  # fmt: skip
    with pytest.raises(ResultsError, match="holds gradients, not training: give another folder"):
        load_results(tmp_path / "gradients")
    with pytest.raises(ResultsError, match="holds training, not gradients: give another folder"):
        load_gradients(tmp_path / "training")
    write_cells(table, tmp_path / "both")
    write_cells(gradients.assign(key="g" + gradients["key"]), tmp_path / "both", GRADIENTS)
    for load in (load_results, load_gradients):
        with pytest.raises(
            ResultsError, match="gradients and training: keep them in folders apart"
        ):
            load(tmp_path / "both")


def test_a_search_is_one_from_its_beginning(table: pd.DataFrame, tmp_path: Path) -> None:
    """Its trials' cells are there before their table is."""
    write(table, tmp_path)
    (tmp_path / stored.JOURNAL).touch()
    assert kind_of(tmp_path) == "search"


def test_a_file_that_goes_while_it_is_read_is_no_damage(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_cells(table, tmp_path)
    real = stored.read_cell

    def read_cell(file: Path) -> pa.Table:
        paths[1].unlink(missing_ok=True)  # after it has been listed, before it is read
        return real(file)

    monkeypatch.setattr(stored, "read_cell", read_cell)
    assert load_results(tmp_path)["key"].nunique() == 3


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"holds no results: first run a grid with --out"):
        load_results(tmp_path)


STRANGE = ["../../x", "/x", "..", "a/b", "a\\b", "", "x\n", ".x", "a b", "\x1b[2J", "\0"]


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("column", ["task", "estimator", "knob"])
def test_names_from_files_are_no_paths(
    column: str, name: str, table: pd.DataFrame, tmp_path: Path
) -> None:
    kind, load = (GRADIENTS, load_gradients) if column == "knob" else (TRAINING, load_results)
    rows = as_rows_of(kind, table).assign(**{column: name})
    folder = write(rows, tmp_path / "results", kind)
    with pytest.raises(ResultsError) as error:
        load(folder)
    words = f"has {name!r} in the column {column}, which is no name: move it elsewhere"
    assert str(error.value).startswith(f"{folder / 'table.parquet'} {words}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("column", ["task", "estimator"])
def test_a_table_with_rows_of_nothing_is_refused(
    column: str, table: pd.DataFrame, tmp_path: Path
) -> None:
    whose = table[column].where(table["seed"] == 0, None)
    write(table.assign(**{column: whose}), tmp_path)
    with pytest.raises(ResultsError, match=rf"table\.parquet has rows without {column}: move it"):
        load_results(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "3", "[]", '"a"', "null", '{"estimator": 3}', "[" * 10_000]
)
def test_hyperparameters_that_are_none_are_refused(
    text: str, table: pd.DataFrame, tmp_path: Path
) -> None:
    path = write_cells(table.assign(hyperparameters=text), tmp_path)[0]
    with pytest.raises(ResultsError) as error:
        load_results(tmp_path)
    assert str(error.value).startswith(f"{path} has hyperparameters that are no JSON of settings:")


def test_hyperparameters_that_are_not_known_are_no_mistake(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    table = table.assign(hyperparameters=None)
    loaded = load_results(write(table, tmp_path))
    assert len(flatten_hyperparameters(loaded)) == len(table)
    assert not changes(end_rows(loaded), end_rows(loaded), "game").empty


@pytest.mark.parametrize("where", [".stversions", "task=game/estimator=sfe/.ipynb_checkpoints"])
def test_what_others_keep_in_hidden_folders_is_no_cell(
    where: str, table: pd.DataFrame, tmp_path: Path
) -> None:
    paths = write_cells(table, tmp_path)
    kept = tmp_path / "cells" / where / "kept-checkpoint.parquet"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(paths[0].read_bytes())
    assert stored.cell_files(tmp_path) == paths
    assert len(load_results(tmp_path)) == len(table)


def test_a_folder_of_no_name_holds_no_cell(table: pd.DataFrame, tmp_path: Path) -> None:
    path = write_cells(table, tmp_path)[0]
    path.parent.rename(path.parent.with_name("estimator=.."))
    with pytest.raises(ResultsError, match=r"is in a folder of '\.\.', no name: remove it"):
        load_results(tmp_path)


def test_a_grid_with_a_byte_order_mark_is_read(table: pd.DataFrame, tmp_path: Path) -> None:
    """As editors on Windows leave it."""
    write_cells(table, tmp_path)
    ask(tmp_path, "gamesfe0")
    path = tmp_path / "grid.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert [asked.key for asked in read_grid(tmp_path)] == ["gamesfe0"]
