"""Tasks by name. A file in this folder adds one."""

from functools import cache
from typing import TypeVar

import tasks
from registering import Registry, import_folder
from tasks.base import Task

T = TypeVar("T", bound=type[Task])

_registry: Registry[Task] = Registry(Task)


def register(task: T) -> T:
    """Class decorator that adds a task under its name.

    Raises:
        RegistrationError: it lacks what a task has to give, or its name is taken.
    """
    _registry.add(task)
    return task


@cache
def all_tasks() -> dict[str, type[Task]]:
    """Every registered task by name, in alphabetical order.

    Raises:
        RegistrationError: a file can't be imported, or what it registers is not whole.
    """
    import_folder(tasks)
    return _registry.by_name()
