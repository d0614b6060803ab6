"""Results tables made by hand, of every column that a run writes."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.schema import PARTITIONS, TRAINING, Kind
from analysis.stored import Asked

NUMERICS = 2

SETTINGS = {"training": {"lr": 1}, "task": {}, "evaluation": {}, "dataset_digest": "abc"}

COMMON: dict[str, Any] = {
    "profile": "quick", "dataset": "digits", "latent_size": 8, "status": "ok", "reason": None,
    "schema_version": TRAINING.version, "command": "run_bench.py",
    "hyperparameters": json.dumps(SETTINGS),
    "threads": 1, "cells_beside": 1, "device": "cpu", "machine": "one", "kernels": "AVX2",
    "commit": "0123456789ab", "dirty": False, "started": "2026-01-01T00:00:00+00:00",
}  # fmt: skip

NUMBERS = (
    "accuracy", "agreement", "chance", "elbo", "nll", "nll_effective_samples", "rate",
    "distortion", "loss", "support_mean", "unsolved", "on_vertex", "on_edge", "face_vertices",
    "rounded_elbo", "rounded_nll", "rounded_loss",
    "decoder_calls", "decoder_calls_total", "slopes", "oracle_calls",
    "train_seconds", "epoch", "step",
)  # fmt: skip


def cell(
    task: str, estimator: str, seed: int, score: float, calls: float = 2.0, **columns: Any
) -> list[dict[str, Any]]:
    """The rows of one cell: three on validation, two on test, of which the best model's is earlier.

    `bitvector` has an NLL, all other tasks an accuracy. A cell with another status has no row on
    test, and a `skipped` or `failed` one has nothing but its status.
    """
    common = COMMON | {
        "task": task, "estimator": estimator, "seed": seed, "key": f"{task}{estimator}{seed}",
    }  # fmt: skip
    common |= columns
    if common["status"] in ("skipped", "failed"):
        return [common | {"reason": "because"}]
    if common["status"] != "ok":
        common["reason"] = "loss is not finite"
    rows = []
    for step, share in ((0, 0.2), (10, 0.6), (20, 1.0)):
        numbers = {
            "split": "validation", "step": step, "epoch": step / 10, "loss": -score * share,
            "elbo": -20 / (share + score),
            "support_mean": 8 - 3 * share if "sparse" in estimator else 8.0,
            "decoder_calls_total": calls * 100 * step, "train_seconds": 0.3 * step,
        }  # fmt: skip
        rows.append(common | numbers | ({} if task == "bitvector" else {"accuracy": score * share}))
    final = rows[-1] | {"split": "test", "decoder_calls": calls}
    if task == "bitvector":
        final |= {"nll": score, "rate": score, "distortion": 10 + score}
    else:
        final |= {"chance": 0.1}
        rows = [row | {"chance": 0.1} for row in rows]
    tested = [final | {"selection": "last"}, final | {"selection": "best", "step": 10, "epoch": 1}]
    return [*rows, *tested] if common["status"] == "ok" else rows


def table_of(cells: Iterable[list[dict[str, Any]]]) -> pd.DataFrame:
    """A table of cells, with every column that the analysis reads."""
    table = pd.DataFrame([row for rows in cells for row in rows])
    for name in (*NUMBERS, "split", "selection"):
        if name not in table:
            table[name] = np.nan if name in NUMBERS else None
    return table.astype(dict.fromkeys(NUMBERS, float))


def grid(
    tasks: Iterable[str], estimators: Iterable[str], seeds: int, noise: float = 0.02
) -> pd.DataFrame:
    """Every estimator on every task; later ones score more, and seeds have effects of their own."""
    random = np.random.default_rng(0)
    estimators = list(estimators)
    effects = random.normal(0, 0.05, size=seeds)
    return table_of(
        cell(task, name, seed, 0.4 + 0.04 * place + effects[seed] + noise * random.normal())
        for task in tasks
        for place, name in enumerate(estimators)
        for seed in range(seeds)
    )


def as_stored(table: pd.DataFrame, kind: Kind = TRAINING) -> pa.Table:
    """Rows with every column of their kind, nulls where the table has none."""
    partitions = [pa.field(name, pa.string()) for name in PARTITIONS if name in table]
    columns = pa.schema([*kind.columns, *partitions])
    whole = table.assign(numerics=NUMERICS).reindex(columns=columns.names)
    return pa.Table.from_pandas(whole, schema=columns, preserve_index=False)


def write(table: pd.DataFrame, folder: Path, kind: Kind = TRAINING) -> Path:
    """Store a table as a compacted results folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(as_stored(table, kind), folder / "table.parquet")
    return folder


def write_cells(table: pd.DataFrame, folder: Path, kind: Kind = TRAINING) -> list[Path]:
    """Store a table in a file for each cell; their paths."""
    paths = []
    for (task, estimator, key), rows in table.groupby(["task", "estimator", "key"]):
        path = folder / "cells" / f"task={task}" / f"estimator={estimator}" / f"{key}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(as_stored(rows.drop(columns=["task", "estimator"]), kind), path)
        paths.append(path)
    return paths


def ask(folder: Path, *keys: str) -> None:
    """Note that a folder was asked for these cells of the game, by keys such as `cell` gives."""
    names = [key.removeprefix("game").rstrip("0123456789") for key in keys]
    asked = [
        Asked(key, f"game/{name}/{place}", "game", "basis")
        for place, (key, name) in enumerate(zip(keys, names, strict=True))
    ]
    (folder / "grid.json").write_text(json.dumps([asdict(one) for one in asked]))
