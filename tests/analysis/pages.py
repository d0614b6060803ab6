"""Results tables made by hand, with every column that the page reads."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.schema import TRAINING

HOSTILE = "<b>&lt;bold</b></script><script>window.hacked = 1</script><img src=x onerror=hacked=2>"


def cell(
    task: str, estimator: str, seed: int, score: float, status: str = "ok", **values: Any
) -> Iterator[dict[str, Any]]:
    """The rows of a cell: three on validation and one on test, or one where it did not end well."""
    common: dict[str, Any] = {
        "schema_version": TRAINING.version, "task": task, "estimator": estimator, "seed": seed,
        "status": status,
        "key": f"{task}{estimator}{seed}".replace("/", ""), "command": "run_bench.py",
        "reason": None if status == "ok" else "because",
        "hyperparameters": json.dumps({"task": {"hidden": 8}, "estimator": {"samples": seed}}),
        "started": "2026-01-01T00:00:00+00:00", "commit": "abc", "dirty": False, "threads": 1,
        "train_seconds": 1.0, **values,
    }  # fmt: skip
    if status not in ("ok", "diverged"):
        yield common
        return
    for step, split in ((0, "validation"), (10, "validation"), (20, "validation"), (20, "test")):
        if status == "diverged" and split == "test":
            return
        numbers = {
            "split": split, "step": step, "epoch": step / 10, "train_seconds": step / 4,
            "accuracy": score * step / 20, "decoder_calls_total": step * 64, "decoder_calls": 1.0,
            "chance": 0.1, "elbo": -100 * (1 - score), "loss": 100 * (1 - score),
        }  # fmt: skip
        yield common | numbers | values


def table_of(*cells: Iterator[dict[str, Any]]) -> pd.DataFrame:
    """All rows, with the columns of stored results."""
    rows = [row for rows in cells for row in rows]
    table = pd.DataFrame(rows, columns=["task", "estimator", *TRAINING.columns.names])
    numbers = [f.name for f in TRAINING.columns if str(f.type) in ("double", "int64")]
    for name in numbers:
        if table[name].isna().all():
            table[name] = np.nan
    return table


def ordinary() -> pd.DataFrame:
    """Two tasks, four estimators, two seeds, and each status."""
    return table_of(
        *(
            cell(task, estimator, seed, score + seed / 50)
            for task in ("game", "images")
            for estimator, score in (("sfe", 0.4), ("dense", 0.8), ("none", 0.2))
            for seed in (0, 1)
        ),
        cell("images", "theirs", 0, 0.6),
        cell("images", "theirs", 1, 0.3, "diverged"),
        cell("game", "theirs", 0, 0, "failed"),
        cell("game", "sparsemap", 0, 0, "skipped"),
    )


def hostile() -> pd.DataFrame:
    """The same with markup wherever there is text."""
    texts = dict.fromkeys(("reason", "command", "commit", "machine", "profile"), HOSTILE)
    settings = json.dumps({"estimator": {HOSTILE: HOSTILE}})
    table = pd.concat(
        [ordinary(), table_of(cell("images", HOSTILE, 0, 0.7), cell(HOSTILE, HOSTILE, 1, 0.7))]
    )
    return table.assign(**texts, hyperparameters=settings)


BAD = {
    "one seed": table_of(cell("images", "sfe", 0, 0.5), cell("images", "dense", 0, 0.7)),
    "all failed": table_of(cell("images", "sfe", 0, 0, "failed"), cell("a", "b", 0, 0, "diverged")),
    "no number": table_of(
        cell("images", "sfe", 0, 0.5, accuracy=np.nan, elbo=np.inf, loss=np.nan, chance=np.nan)
    ),
    "unknown estimator": table_of(cell("theirs", "of another package", 0, 0.5)),
    "empty": ordinary().iloc[:0],
}
"""Input for which the page has to make sense all the same."""
