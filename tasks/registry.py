"""Tasks by name. A file in this folder adds one."""

import importlib
import pkgutil
from functools import cache
from typing import TypeVar

import tasks
from tasks.base import Task

T = TypeVar("T", bound=type[Task])

_registered: dict[str, type[Task]] = {}


def register(task: T) -> T:
    """Class decorator that adds a task under its name.

    Raises:
        ValueError: the name is taken by another class.
    """
    other = _registered.setdefault(task.name, task)
    if other is not task:
        raise ValueError(f"two tasks are named {task.name!r}: {other}, {task}")
    return task


@cache
def all_tasks() -> dict[str, type[Task]]:
    """Every registered task by name, in alphabetical order."""
    for module in pkgutil.iter_modules(tasks.__path__):
        importlib.import_module(f"tasks.{module.name}")
    return dict(sorted(_registered.items()))
