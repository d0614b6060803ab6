"""Estimators by name. A file in this folder, or another package's entry point, adds one.

An entry point of the group `discrete_gradients.estimators` names a module that registers its
estimators when it is imported.
"""

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar

import estimators
from estimators.base import Estimator

E = TypeVar("E", bound=type[Estimator])

_registered: dict[str, type[Estimator]] = {}


def register(estimator: E) -> E:
    """Class decorator that adds an estimator under its name.

    Raises:
        ValueError: the name is taken by another class.
    """
    other = _registered.setdefault(estimator.name, estimator)
    if other is not estimator:
        raise ValueError(f"two estimators are named {estimator.name!r}: {other}, {estimator}")
    return estimator


@cache
def all_estimators() -> dict[str, type[Estimator]]:
    """Every registered estimator by name, in alphabetical order."""
    for wing in pkgutil.iter_modules(estimators.__path__, "estimators."):
        package = importlib.import_module(wing.name)
        if wing.ispkg and wing.name != "estimators.mappings":  # which stands alone
            for module in pkgutil.iter_modules(package.__path__, f"{wing.name}."):
                importlib.import_module(module.name)
    for entry in entry_points(group="discrete_gradients.estimators"):
        entry.load()
    return dict(sorted(_registered.items()))
