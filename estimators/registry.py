"""Estimators by name. A file in this folder, or another package's entry point, adds one.

An entry point of the group `discrete_gradients.estimators` names a module that registers its
estimators when it is imported.
"""

from functools import cache
from typing import TypeVar

import estimators
from estimators.base import Estimator
from registering import Registry, import_entry_points, import_folder

E = TypeVar("E", bound=type[Estimator])

_registry: Registry[Estimator] = Registry(Estimator)


def register(estimator: E) -> E:
    """Class decorator that adds an estimator under its name.

    Raises:
        RegistrationError: it lacks what an estimator has to give, or its name is taken.
    """
    _registry.add(estimator)
    return estimator


@cache
def all_estimators() -> dict[str, type[Estimator]]:
    """Every registered estimator by name, in alphabetical order.

    Raises:
        RegistrationError: a file can't be imported, or what it registers is not whole.
    """
    import_folder(estimators)
    import_entry_points("discrete_gradients.estimators")
    return _registry.by_name()
