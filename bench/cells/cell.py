"""A cell: one estimator on one task at one seed, and the key that identifies its numbers."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from bench.cells.building import Latent, build_task, latent_of
from bench.cells.numerics import NUMERICS
from bench.errors import UserError, unknown
from bench.profiles.profile import BUDGET, Profile, validated
from estimators.registry import all_estimators
from tasks.base import Split, Task
from tasks.data.datasets import DATASETS, FEATURES
from tasks.registry import all_tasks

FIRST_TUNING_SEED = 10_000
"""Seeds from here on are for searching settings. Their cells never see the test split."""


@dataclass(frozen=True)
class Cell:
    """What determines the numbers of a cell to the last bit, on one kind of machine."""

    task: str
    estimator: str
    seed: int
    dataset_digest: str
    task_settings: dict[str, Any]
    estimator_settings: dict[str, Any]
    training: dict[str, Any]
    evaluation: dict[str, Any]
    threads: int = 1
    """They order sums, which rounds otherwise."""
    device: str = "cpu"
    """Its type, "cpu" or "cuda": each has a generator of its own."""
    gradients: dict[str, Any] | None = None
    """Where that is what the cell is for: how to measure gradients ("settings"), on which model
    ("model"), and the setting of the estimator that was turned, if one was ("knob")."""
    timing: bool = False
    """Only the time of some steps is wanted."""

    @cached_property
    def key(self) -> str:
        """A hash of the fields above and of the version of the numerics; 16 hexadecimal digits.

        The order of the command line, the number of jobs, paths and the host have no part in it.
        """
        content = json.dumps(asdict(self) | {"numerics": NUMERICS}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def last_split(self) -> Split:
        """What the trained model is evaluated on."""
        return "validation" if self.seed >= FIRST_TUNING_SEED else "test"

    @property
    def name(self) -> str:
        """What a person calls it: where its numbers go in a table."""
        knob = {} if self.gradients is None else self.gradients["knob"]
        where = [f"{name}={value:g}" for name, value in knob.items()]
        return " ".join([f"{self.task}/{self.estimator}/{self.seed}", *where])

    @property
    def basis(self) -> str:
        """A hash of what cells of a task must have in common to be compared: numerics, data, model,
        budget of training, evaluation."""
        budget = [self.training[name] for name in BUDGET]
        measured = None if self.gradients is None else {**self.gradients, "knob": None}
        common = [
            NUMERICS,
            self.dataset_digest,
            self.task_settings,
            budget,
            self.evaluation,
            measured,
        ]
        return hashlib.sha256(json.dumps(common, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Planned:
    """A cell of the grid, and why it will not be run if it can't be."""

    cell: Cell
    skip: str | None


def plan(
    tasks: Sequence[str],
    estimators: Sequence[str],
    seeds: int,
    profile: Profile,
    dataset: str | None = None,
    data_dir: Path | None = None,
    threads: int = 1,
    device: str = "cpu",
) -> list[Planned]:
    """Every cell of tasks × estimators × seeds, seed by seed.

    Every task is built once for each size of its batches, so that settings that can't work are
    found before anything runs.

    Args:
        tasks, estimators: registered names.
        seeds: how many, from 0.
        profile: where the settings come from.
        dataset: in place of the profile's, for tasks on data.
        data_dir: folder with the data sets that are not bundled.
        threads: of each cell.
        device: where to, such as "cpu" or "cuda:1".
    Raises:
        UserError: a name or a setting is wrong.
        DataError: a data set is missing or damaged, or too small for the settings.
    """
    pairs = [(task, estimator) for task in tasks for estimator in estimators]
    first = [
        _plan_cell(task, estimator, profile, dataset, data_dir, threads, device.partition(":")[0])
        for task, estimator in pairs
    ]
    return [
        Planned(replace(item.cell, seed=seed), item.skip) for seed in range(seeds) for item in first
    ]


def _plan_cell(
    task: str,
    estimator: str,
    profile: Profile,
    dataset: str | None,
    data_dir: Path | None,
    threads: int,
    device: str,
) -> Planned:
    """The pair's cell at seed 0."""
    task_class, estimator_class = all_tasks()[task], all_estimators()[estimator]
    chosen = dataset is not None and not task_class.generates
    overrides = {"dataset": dataset} if chosen else {}
    task_settings = validated(
        task_class.Settings, profile.task_settings(task) | overrides, f"task {task}"
    )
    settings = validated(
        estimator_class.Settings,
        profile.estimator_settings(task, estimator),
        f"estimator {estimator} on {task}",
    )
    training = profile.training_settings(task, estimator)
    if training.warm_start_epochs and not task_class.has_labels:
        raise UserError(f"training on {task}: warm_start_epochs, but it has no labels to start on")
    evaluation = profile.evaluation_settings(task)
    _check_dataset(task_class, task_settings.dataset)
    cell = Cell(
        task=task,
        estimator=estimator,
        seed=0,
        dataset_digest=task_class.data(task_settings, data_dir).digest,
        task_settings=task_settings.model_dump(),
        estimator_settings=settings.model_dump(),
        training=training.model_dump(),
        evaluation=evaluation.model_dump(),
        threads=threads,
        device=device,
    )
    latent = cell_latent(cell, data_dir)
    skip = estimator_class.refusal(latent.space, settings)
    if skip is None and estimator_class.takes_slopes and not task_class.accepts_relaxed:
        skip = f"{estimator} takes slopes, and the decoder of {task} no points to take them at"
    if skip is None and estimator_class.own_model and task_class.has_labels:
        skip = f"the label of {task} is a category, and z of {estimator} lies between categories"
    return Planned(cell, skip)


def _check_dataset(task: type[Task], dataset: str) -> None:
    """Refuse a data set that is not there, or that the task can't take."""
    if task.generates:
        return
    if dataset not in DATASETS:
        raise unknown("dataset", dataset, DATASETS, f"there are {', '.join(DATASETS)}")
    if dataset == FEATURES and not task.takes_features:
        able = ", ".join(name for name, other in all_tasks().items() if other.takes_features)
        raise UserError(f"{task.name} takes images, not {dataset}: give --tasks {able}")


def cell_latent(cell: Cell, data_dir: Path | None) -> Latent:
    """The latent variable of a cell's task, after building it once.

    Raises:
        DataError: a data set is missing or damaged, or too small for the settings.
    """
    settings = json.dumps(cell.task_settings, sort_keys=True)
    return _latent(cell.task, settings, cell.training["batch_size"], data_dir)


@cache
def _latent(task: str, settings: str, batch_size: int, data_dir: Path | None) -> Latent:
    """The latent variable of a task with these settings (JSON), after building it."""
    return latent_of(build_task(task, json.loads(settings), batch_size, 0, data_dir))
