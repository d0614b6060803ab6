"""A cell: one estimator on one task at one seed, and the key that identifies its numbers."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.errors import unknown
from bench.profiles import Profile, validated
from estimators.base import Latent
from estimators.registry import all_estimators
from tasks.data import DATASETS, load_images
from tasks.registry import all_tasks

NUMERICS = 1
"""Version of everything that determines a cell's numbers; see docs/NUMERICS.md when raising it."""

SEE_LIST = "see run_bench.py list"


@dataclass(frozen=True)
class Cell:
    """What determines the numbers of a cell, up to rounding that depends on threads and device."""

    task: str
    estimator: str
    seed: int
    dataset_digest: str
    task_settings: dict[str, Any]
    estimator_settings: dict[str, Any]
    training: dict[str, Any]
    evaluation: dict[str, Any]

    @property
    def key(self) -> str:
        """A hash of the fields above and of the version of the numerics; 16 hexadecimal digits.

        The order of the command line, the number of jobs, paths and the host have no part in it.
        """
        content = json.dumps(asdict(self) | {"numerics": NUMERICS}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        return f"{self.task}/{self.estimator}/{self.seed}"


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
) -> list[Planned]:
    """Every cell of tasks × estimators × seeds, seed by seed.

    Args:
        tasks, estimators: registered names.
        seeds: how many, from 0.
        profile: where the settings come from.
        dataset: in place of the profile's.
        data_dir: folder with the data sets that are not bundled.
    Raises:
        UserError: a name or a setting is wrong.
        DataError: a data set is missing or damaged.
    """
    return [
        _plan_cell(task, estimator, seed, profile, dataset, data_dir)
        for seed in range(seeds)
        for task in tasks
        for estimator in estimators
    ]


def _plan_cell(
    task: str,
    estimator: str,
    seed: int,
    profile: Profile,
    dataset: str | None,
    data_dir: Path | None,
) -> Planned:
    task_class, estimator_class = all_tasks()[task], all_estimators()[estimator]
    overrides = {} if dataset is None else {"dataset": dataset}
    task_settings = validated(
        task_class.Settings, profile.task_settings(task, estimator) | overrides, f"task {task}"
    )
    settings = validated(
        estimator_class.Settings,
        profile.estimator_settings(task, estimator),
        f"estimator {estimator} on {task}",
    )
    training = profile.training_settings(task, estimator)
    evaluation = profile.evaluation_settings(task)
    if task_settings.dataset not in DATASETS:
        raise unknown(
            "dataset", task_settings.dataset, DATASETS, f"there are {', '.join(DATASETS)}"
        )
    images = load_images(task_settings.dataset, data_dir)
    latent = Latent(task_class.family, task_class.latent_size(images, task_settings), images.size)
    skip = estimator_class.refusal(latent, settings)
    if skip is None and estimator_class.relaxed and not task_class.accepts_relaxed:
        skip = f"{estimator} relaxes z, which the decoder of {task} does not take"
    cell = Cell(
        task=task,
        estimator=estimator,
        seed=seed,
        dataset_digest=images.digest,
        task_settings=task_settings.model_dump(),
        estimator_settings=settings.model_dump(),
        training=training.model_dump(),
        evaluation=evaluation.model_dump(),
    )
    return Planned(cell, skip)
