"""The columns of stored results: what is written, and what is understood.

A column that is added raises the version and is noted in `added`: rows of earlier versions are read
with nulls there. With any other change of the columns, `added` begins anew.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import pyarrow as pa

_COMMON_TEXT = (
    "key", "profile", "dataset", "hyperparameters", "status", "reason", "traceback", "device",
    "machine", "kernels", "torch", "numba", "python", "packages", "commit", "command", "started",
)  # fmt: skip
_COMMON_NUMBERS = ("decoder_calls", "slopes", "oracle_calls", "wall_seconds", "peak_memory_mb")
_COMMON_COUNTS = ("schema_version", "numerics", "seed", "step", "threads", "cells_beside")
_NUMBERS = (
    "epoch", "accuracy", "agreement", "elbo", "nll", "nll_effective_samples", "rate",
    "distortion", "loss", "expected_cost", "entropy", "support_mean", "support_median",
    "support_max", "unsolved", "on_vertex", "on_edge", "face_vertices",
    "rounded_elbo", "rounded_nll", "rounded_loss",
    "train_seconds", "gradient_norm", "gradient_variance", "chance",
)  # fmt: skip
_COUNTS = (
    "latent_size", "examples", "decoder_calls_total", "slopes_total", "oracle_calls_total",
    "supervised_calls_total",
)  # fmt: skip
_GRADIENT_NUMBERS = (
    "share", "exact_norm", "bias", "bias_low", "bias_high", "bias_square", "bias_square_error",
    "variance", "variance_error", "mean_squared_error", "signal_to_noise", "cosine", "cosine_error",
    "objective_distance", "plain_norm", "seconds", "knob_value",
)  # fmt: skip

KindName = Literal["training", "gradients", "timing"]
"""What the cells of a grid do."""

SEARCH_VERSION = 1
"""The version of the columns of a search's trials, which is written and understood."""

REQUIRED = ("schema_version", "numerics", "key", "seed", "status")
"""Columns that every row has a value in."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""Of tasks, of estimators and of settings that are turned."""

PARTITIONS = ("task", "estimator")
"""Columns that stand in the path of a cell's file."""

CIRCUMSTANCES = frozenset(
    {
        "profile", "reason", "traceback", "device", "machine", "kernels", "torch", "numba",
        "python", "packages", "commit", "dirty", "command", "started", "cells_beside",
        "wall_seconds", "train_seconds", "seconds", "milliseconds", "peak_memory_mb",
        "schema_version", "hyperparameters",
    }
)  # fmt: skip
"""Columns that may differ where the same cell is run again: the others are its numbers.

Hyper-parameters too, which say where values come from; the values are part of the key."""


def _schema(text: Sequence[str], numbers: Sequence[str], counts: Sequence[str]) -> pa.Schema:
    return pa.schema(
        [(name, pa.string()) for name in text]
        + [(name, pa.float64()) for name in numbers]
        + [(name, pa.int64()) for name in counts]
        + [("dirty", pa.bool_())]
    )


@dataclass(frozen=True, eq=False)
class Kind:
    """What cells do, and the columns of their rows."""

    name: KindName
    columns: pa.Schema
    version: int
    """Which is written."""
    added: Mapping[int, tuple[str, ...]]
    """The columns that came with each version but the oldest that is read."""
    order: Mapping[str, tuple[str | None, ...]]
    """The columns that tell the rows of a cell apart, and order them: for each its values in their
    order, none for numbers."""

    @cached_property
    def whole(self) -> pa.Schema:
        """The columns as they are read: with those of the path."""
        return pa.schema([*self.columns, *(pa.field(name, pa.string()) for name in PARTITIONS)])

    @cached_property
    def later(self) -> frozenset[str]:
        """The columns that rows of some version that is read don't have."""
        return frozenset(name for names in self.added.values() for name in names)

    def missing(self, version: int) -> list[str] | None:
        """The columns that rows of a version don't have yet; None if it can't be read."""
        if not min(self.added, default=self.version + 1) - 1 <= version <= self.version:
            return None
        return [name for since, names in self.added.items() if since > version for name in names]


TRAINING = Kind(
    "training",
    _schema(
        (*_COMMON_TEXT, "split", "selection", "diagnostics"),
        (*_COMMON_NUMBERS, *_NUMBERS),
        (*_COMMON_COUNTS, *_COUNTS),
    ),
    version=8,
    added={
        3: ("selection",),
        4: ("packages", "traceback"),
        5: ("slopes", "oracle_calls", "slopes_total", "oracle_calls_total"),
        6: ("kernels",),
        7: ("on_vertex", "rounded_elbo", "rounded_nll", "rounded_loss"),
        8: ("agreement", "on_edge", "face_vertices", "gradient_variance"),
    },
    order={"split": ("validation", "test"), "selection": (None, "last", "best"), "step": ()},
)

GRADIENTS = Kind(
    "gradients",
    _schema(
        (*_COMMON_TEXT, "group", "knob", "declared"),
        (*_COMMON_NUMBERS, *_GRADIENT_NUMBERS),
        (*_COMMON_COUNTS, "draws", "size", "batches"),
    ),
    version=6,
    added={4: ("packages", "traceback"), 5: ("slopes", "oracle_calls"), 6: ("kernels",)},
    order={"share": (), "group": ("scores", "encoder", "decoder")},
)

TIMING = Kind(
    "timing",
    _schema(_COMMON_TEXT, (*_COMMON_NUMBERS, "milliseconds"), (*_COMMON_COUNTS, "repetition")),
    version=3,
    added={2: ("slopes", "oracle_calls"), 3: ("kernels",)},
    order={"repetition": ()},
)

SEARCH = pa.schema(
    [(name, pa.string()) for name in (
        "study", "task", "estimator", "state", "reason", "objectives", "values", "parameters",
        "metrics", "space", "keys", "started", "profile", "dataset", "sampler", "pruner",
        "machine", "commit", "torch", "python", "command",
    )]
    + [(name, pa.int64()) for name in ("schema_version", "place", "seeds")]
    + [(name, pa.float64()) for name in ("value", "seconds", "train_seconds")]
    + [(name, pa.bool_()) for name in ("less_is_better", "dirty")]
)  # fmt: skip
"""Of a search: a row for each trial; what is no plain column is JSON. See results/README.md."""


def kind_with(columns: Collection[str]) -> Kind:
    """The kind of rows that have these columns."""
    marks = {"group": GRADIENTS, "repetition": TIMING}
    return next((kind for mark, kind in marks.items() if mark in columns), TRAINING)
