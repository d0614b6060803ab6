"""The trials of a search, as they are on disk."""

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from annotated_types import Len
from optuna.distributions import json_to_distribution
from pydantic import AfterValidator, TypeAdapter, ValidationError

from analysis.schema import NAME, PARTITIONS, SEARCH, SEARCH_VERSION
from analysis.stored import TRIALS, ResultsError
from analysis.texts import shared_command


def _distribution(text: str) -> str:
    """A text, if it is of one of Optuna's distributions; else raises ValueError."""
    try:
        json_to_distribution(text)
    except (TypeError, KeyError) as error:
        raise ValueError(str(error)) from error
    return text


_DECODED: dict[str, TypeAdapter[Any]] = {
    "objectives": TypeAdapter(Annotated[list[str], Len(min_length=1)]),
    "values": TypeAdapter(list[float]),
    "parameters": TypeAdapter(dict[str, Any]),
    "metrics": TypeAdapter(dict[str, Any]),
    "space": TypeAdapter(dict[str, Annotated[str, AfterValidator(_distribution)]]),
    "keys": TypeAdapter(list[str]),
}
"""Columns that are JSON, and of what."""


def load_trials(folder: Path) -> pd.DataFrame:
    """The trials of a search, a row for each, with JSON columns decoded; see results/README.md.

    Raises:
        ResultsError: there are none, or they are damaged, or of another schema.
    """
    path = folder / TRIALS
    try:
        with path.open("rb") as file:
            rows = pq.read_table(file)
        version = {*rows["schema_version"].to_pylist()}
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ResultsError(f"{path} can't be read: run run_bench.py tune again") from error
    if version - {SEARCH_VERSION}:
        raise ResultsError(f"{path} has schema {version}, this is {SEARCH_VERSION}: tune again")
    if not rows.schema.equals(SEARCH):
        raise ResultsError(f"{path} has other columns than a search's: run run_bench.py tune again")
    table: pd.DataFrame = rows.to_pandas()
    try:
        _decode(table)
    except ValueError as error:
        raise ResultsError(f"{path} has {error}: run run_bench.py tune again") from error
    if (twice := table.duplicated(["study", "place"])).any():
        study, place = table.loc[twice, ["study", "place"]].iloc[0]
        said = f"has place {place} of {study} more than once: keep one of each"
        raise ResultsError(f"{path} {said}, or run run_bench.py tune again")
    table["command"] = table["command"].map(shared_command, na_action="ignore")
    return table.sort_values(["task", "estimator", "study", "place"], ignore_index=True)


def _decode(table: pd.DataFrame) -> None:
    """Decode the columns of a search's trials that are JSON, after a look at what they hold.

    Raises:
        ValueError: with a column that holds something else than it should.
    """
    for name in ("study", "place", "state", "less_is_better", *PARTITIONS):
        if table[name].isna().any():
            raise ValueError(f"rows without {name}")
    for name in PARTITIONS:
        strange = [value for value in table[name] if not NAME.fullmatch(value)]
        if strange:
            raise ValueError(f"{strange[0]!r} in the column {name}, which is no name")
    for name, kind in _DECODED.items():
        try:
            table[name] = [kind.validate_json(text or "", strict=True) for text in table[name]]
        except ValidationError as error:
            raise ValueError(f"a value in the column {name} that is none of a search") from error
    for values, objectives in zip(table["values"], table["objectives"], strict=True):
        if len(values) not in (0, len(objectives)):
            raise ValueError(f"a trial with {len(values)} values of {', '.join(objectives)}")
