"""Milliseconds of a training step, part by part, against what the machine can do.

`make bench-steps`: tasks on images with every estimator at the published sizes (`--profile paper`),
data and optimizer included, evaluation excluded. Images are random, which no time depends on, as
are the game's features, 4096 for an image. Weights stay as they were initialised (a learning rate
of 1e-12), where supports are at their largest.
Prints tables and writes results/steps/<commit>.parquet.
"""

import argparse
import contextlib
import struct
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import joblib
import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from bench.cells.cell import Planned, plan
from bench.cells.memory import keep_memory
from bench.cells.provenance import provenance
from bench.cells.training import Trainer
from bench.profiles.profile import Profile, load_profile
from estimators.distributions.sparse import SparseDistribution
from estimators.registry import all_estimators
from estimators.spaces.bits import BernoulliBits
from estimators.spaces.categoricals import IndependentCategoricals
from estimators.spaces.distribution import Distribution
from tasks.likelihoods.compiled.exponential import CONSTANTS, exponentials
from tasks.registry import all_tasks

REFERENCE: dict[str, dict[str, float]] = {
    "bitvector 32": {
        "sfe-ma": 221, "sfe-second-sample": 444, "nvil": 228, "gumbel": 205, "st-gumbel": 198,
        "topk-sparsemax": 2879, "sparsemap": 5301, "sparsemap-budget": 3523,
    },
    "bitvector 128": {
        "sfe-ma": 244, "sfe-second-sample": 451, "nvil": 236, "gumbel": 237, "st-gumbel": 209,
        "topk-sparsemax": 2332, "sparsemap": 16121, "sparsemap-budget": 23313,
    },
    "ssvae": {
        "sfe-ma": 13.2, "sfe-second-sample": 14.7, "nvil": 29.2, "gumbel": 13.0, "st-gumbel": 13.1,
        "dense": 25.7, "sparsemax": 19.5, "sum-and-sample": 19.2,
    },
    "signal_game": {
        "sfe-ma": 490, "sfe-second-sample": 500, "nvil": 544, "gumbel": 452, "st-gumbel": 388,
        "dense": 12282, "sparsemax": 6351, "sum-and-sample": 616,
    },
    "sbn": {},
    "categorical_vae": {},
}  # fmt: skip
"""Milliseconds a step of the public code of Correia et al. 2020, two cores, batch 64; of other
tasks no public code was timed."""

PARTS = ("data", "encoder", "mapping", "estimator", "decoder", "backward", "optimizer")


def random_idx_files(folder: Path, train: int = 60_000, test: int = 500) -> None:
    """A data set "mnist" of random bytes."""
    generator = np.random.default_rng(0)
    (folder / "mnist").mkdir()
    for name, count in (("train", train), ("t10k", test)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for file, magic, array in (
            (f"{name}-images-idx3-ubyte", 2051, images),
            (f"{name}-labels-idx1-ubyte", 2049, labels),
        ):
            header = struct.pack(f">{1 + array.ndim}i", magic, *array.shape)
            (folder / "mnist" / file).write_bytes(header + array.tobytes())


def random_features(folder: Path, each: int = 20) -> None:
    """A data set "features" of the published shape, with some images of each concept."""
    generator = np.random.default_rng(0)
    labels = np.arange(463).repeat(each)
    (folder / "features").mkdir()
    for part in ("train", "test"):
        vectors = generator.random((len(labels), 4096), dtype=np.float32)
        np.savez(folder / "features" / f"{part}.npz", features=vectors, labels=labels)


class Parts:
    """Time spent in each part of a step, without what it calls of another part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack: list[tuple[str, float]] = []

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            now = time.perf_counter()
            if self._stack:
                outer, since = self._stack[-1]
                self.seconds[outer] += now - since
            self._stack.append((part, now))
            try:
                return function(*arguments, **named)
            finally:
                now = time.perf_counter()
                _, since = self._stack.pop()
                self.seconds[part] += now - since
                if self._stack:
                    self._stack[-1] = (self._stack[-1][0], now)

        return call


@contextlib.contextmanager
def watched(trainer: Trainer) -> Iterator[Parts]:
    """Time the parts of the trainer's steps."""
    parts = Parts()
    places: list[tuple[Any, str, str]] = [
        (trainer.task, "training_batch", "data"),
        (trainer.task, "encode", "encoder"),
        (trainer.estimator, "distribution", "mapping"),
        *((trainer.estimator, name, "estimator") for name in ("propose", "combine", "update")),
        (trainer.task, "cost", "decoder"),
        (torch.Tensor, "backward", "backward"),
        (torch.autograd, "grad", "backward"),
        *((trainer.optimizer, name, "optimizer") for name in ("zero_grad", "step")),
        *(
            (kind, name, "estimator")
            for kind in (Distribution, IndependentCategoricals, BernoulliBits, SparseDistribution)
            for name in ("entropy", "label_loss")
            if name in vars(kind)
        ),
    ]
    before = [(thing, name, thing.__dict__.get(name)) for thing, name, _ in places]
    for thing, name, part in places:
        setattr(thing, name, parts.timed(part, getattr(thing, name)))
    try:
        yield parts
    finally:
        for thing, name, old in before:
            if old is None:
                delattr(thing, name)
            else:
                setattr(thing, name, old)


KINDS = {
    "exponentials": (
        "exp", "sigmoid", "softmax", "softplus", "log", "binary_cross_entropy", "tanh"
    ),
    "random": ("rand", "uniform_", "bernoulli", "exponential_", "normal_"),
}  # fmt: skip
"""Parts of the names of operations whose numbers are counted: exponentials and logarithms that are
taken, and random numbers that are drawn."""

OTHERS = ("backward", "expand", "logical")
"""Of those that have such a name and are none."""


class Numbers(TorchDispatchMode):
    """Counts numbers by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.count = dict.fromkeys(KINDS, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if not any(part in name for part in OTHERS):
            for kind, parts in KINDS.items():
                if any(part in name for part in parts):
                    first = args[0] if isinstance(args[0], torch.Tensor) else found
                    self.count[kind] += first.numel()
        return found


def rates() -> dict[str, float]:
    """What this machine does in a second: products, exponentials, random numbers, bytes."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    big, source = torch.empty(2**25), torch.ones(2**25)
    x, bits = np.zeros(2**16, np.float32), np.zeros(2**16, np.int32)
    loop = partial(exponentials, x, np.float32(0), *CONSTANTS["float32"], bits)
    loop()  # is compiled
    integers = torch.empty(2**16, dtype=torch.int64)
    return {
        "flops": 2 * 1024**3 / fastest(lambda: a @ b),
        "exponentials": torch.get_num_threads() * len(x) / fastest(loop),  # it takes one thread
        "random": len(integers) / fastest(integers.random_),
        "bytes": 2 * 4 * 2**25 / fastest(lambda: big.copy_(source)),
    }


def fastest(call: Callable[[], object], repetitions: int = 20) -> float:
    """Seconds of the fastest of some calls."""
    best = float("inf")
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def floor(trainer: Trainer, machine: dict[str, float]) -> dict[str, float]:
    """Seconds that a step can't do without: products, exponentials, random numbers, and Adam's
    passes over memory."""
    # In whole-tensor operations, as what compiled loops do can't be counted.
    with (
        patch("tasks.likelihoods.pixels.compiled", return_value=None),
        patch("tasks.likelihoods.pointwise.compiled", return_value=None),
        FlopCounterMode(display=False) as flops,
        Numbers() as numbers,
    ):
        trainer.train(1)
    parameters = sum(p.numel() for g in trainer.optimizer.param_groups for p in g["params"])
    return {
        "floor_flops": flops.get_total_flops() / machine["flops"],
        **{f"floor_{kind}": count / machine[kind] for kind, count in numbers.count.items()},
        # Adam reads a parameter, its gradient and two moments, and writes all but the gradient.
        "floor_adam": 7 * 4 * parameters / machine["bytes"],
    }


def measure(
    cells: list[Planned], data_dir: Path, repetitions: int, machine: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """A row for each cell; repetitions of the cells are interleaved."""
    trainers = [Trainer(still(item).cell, data_dir) for item in cells]
    for trainer in trainers:
        trainer.train(2)
    seconds: list[list[float]] = [[] for _ in trainers]
    steps = [max(1, int(0.2 / fastest(lambda t=t: t.train(1), 2))) for t in trainers]  # type: ignore[misc]
    for _ in range(repetitions):
        for trainer, count, own in zip(trainers, steps, seconds, strict=True):
            before = trainer.train_seconds
            trainer.train(count)
            own.append((trainer.train_seconds - before) / count)
    for item, trainer, count, own in zip(cells, trainers, steps, seconds, strict=True):
        calls, rows = trainer.cost.calls["latent"], trainer.rows
        with watched(trainer) as parts:
            start = trainer.train_seconds
            trainer.train(count)
            total = trainer.train_seconds - start
        yield {
            "task": item.cell.task,
            "estimator": item.cell.estimator,
            "bits": item.cell.task_settings.get("bits"),
            "milliseconds": 1e3 * float(np.median(own)),
            "low": 1e3 * float(np.quantile(own, 0.25)),
            "high": 1e3 * float(np.quantile(own, 0.75)),
            "decoder_calls": calls / rows,
            **{f"share_{part}": parts.seconds[part] / total for part in PARTS},
            "share_rest": 1 - sum(parts.seconds[part] for part in PARTS) / total,
            **{name: 1e3 * value for name, value in floor(trainer, machine).items()},
        }


def still(item: Planned) -> Planned:
    """The cell with weights that stay as they are."""
    training = item.cell.training | {"learning_rate": 1e-12}
    return replace(item, cell=replace(item.cell, training=training))


def grid(task: str, profile: Profile, data_dir: Path, bits: int) -> list[Planned]:
    """A task with all estimators that it runs with, for one size of the bit-vectors."""
    changed = profile.model_copy(deep=True)
    changed.tasks["bitvector"].settings["bits"] = bits
    dataset = "features" if task == "signal_game" else "mnist"
    items = plan([task], [*all_estimators()], 1, changed, dataset, data_dir)
    return [item for item in items if item.skip is None and item.cell.estimator != "none"]


def table_of(name: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "estimator", "ms", "quartiles", "reference", "times faster", "calls", "floor", "× floor",
        *PARTS, "rest", title=name, title_justify="left",
    )  # fmt: skip
    for row in rows:
        reference = REFERENCE[name].get(row["estimator"])
        bound = sum(value for key, value in row.items() if key.startswith("floor_"))
        shares = [f"{row[f'share_{part}']:.0%}" for part in (*PARTS, "rest")]
        table.add_row(
            row["estimator"],
            f"{row['milliseconds']:.1f}",
            f"{row['low']:.1f}–{row['high']:.1f}",
            "" if reference is None else f"{reference:g}",
            "" if reference is None else f"{reference / row['milliseconds']:.1f}",
            f"{row['decoder_calls']:.1f}",
            f"{bound:.1f}",
            f"{row['milliseconds'] / bound:.1f}",
            *shares,
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.perf.steps")
    parser.add_argument("--threads", type=int, default=joblib.cpu_count())
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--only", default="", help="a task, or a task and a number of bits")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_memory()
    console, machine = Console(width=150), rates()
    console.print(
        f"torch {torch.__version__}, {given.threads} threads: "
        f"{machine['flops'] / 1e9:.0f} GFLOP/s, {machine['bytes'] / 1e9:.1f} GB/s, "
        f"{machine['exponentials'] / 1e9:.2f} G exponentials/s, "
        f"{machine['random'] / 1e9:.2f} G random numbers/s"
    )
    profile = load_profile("paper", [*all_tasks()], [*all_estimators()])
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        random_idx_files(Path(folder))
        random_features(Path(folder))
        for name in REFERENCE:
            if not name.startswith(given.only):
                continue
            task, _, bits = name.partition(" ")
            cells = grid(task, profile, Path(folder), int(bits or 32))
            rows = [*measure(cells, Path(folder), given.repetitions, machine)]
            console.print(table_of(name, rows))
            found += rows
    table = pd.DataFrame(found).assign(
        threads=given.threads, **{f"rate_{key}": value for key, value in machine.items()}
    )
    table = table.assign(**provenance())
    path = Path("results/steps") / f"{table['commit'].iloc[0]}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
