"""Tasks and estimators, built from plain settings with the initial parameters of a seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.errors import UserError
from estimators.base import Estimator
from estimators.registry import all_estimators
from estimators.spaces import Space
from tasks.base import Task
from tasks.data.base import DataError, Dataset
from tasks.registry import all_tasks
from tasks.streams import derive_seed

Settings = dict[str, Any]


class Latent(NamedTuple):
    """What an estimator may know of a task."""

    space: Space
    features: int
    """Length of the input vector that baseline networks see."""


SET_BY_CONSTRUCTORS = ("space", "activation_size", "steps_per_epoch", "is_likelihood")
"""Attributes of a task that have no value by default, and that it can have from its settings."""


def build_task(
    name: str, settings: Settings, batch_size: int, seed: int, data_dir: Path | None
) -> Task:
    """A task with its data, and with the initial parameters that all estimators share at a seed.

    Raises:
        UserError: the task's constructor leaves out what it has to set.
        DataError: a data set is missing or damaged, or too small for the settings.
    """
    task_class = all_tasks()[name]
    validated = task_class.Settings(**settings)
    data = task_data(name, settings, data_dir)
    with _seeded(seed, "parameters"):
        task = task_class(data, validated, batch_size)
    unset = [attribute for attribute in SET_BY_CONSTRUCTORS if not hasattr(task, attribute)]
    if unset:
        raise UserError(f"the constructor of task {name} sets no {', '.join(unset)}")
    if task.steps_per_epoch < 1:
        raise DataError(
            f"{name} on {data.name} has fewer rows than a batch of {batch_size}: lower the "
            "setting batch_size"
        )
    return task


def task_data(name: str, settings: Settings, data_dir: Path | None) -> Dataset:
    """The data of a task with these settings.

    Raises:
        DataError: a data set is missing or damaged.
    """
    task_class = all_tasks()[name]
    return task_class.data(task_class.Settings(**settings), data_dir)


def build_estimator(name: str, settings: Settings, latent: Latent, seed: int) -> Estimator:
    """An estimator for a latent variable, with the initial parameters of a seed."""
    with _seeded(seed, "estimator parameters"):
        return all_estimators()[name].make(latent.space, features=latent.features, **settings)


def latent_of(task: Task) -> Latent:
    """What an estimator may know of a task."""
    return Latent(task.space, task.features)


@contextmanager
def _seeded(seed: int, name: str) -> Iterator[None]:
    """Layers initialise themselves from the global generator: seed it, and put it back after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, name))
        yield
