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


def wing_of(estimator: type[Estimator]) -> str:
    """The folder here that an estimator's file is in, such as "relaxed" (the file itself, if it is
    in none), or the package that it comes from."""
    package, *inside = estimator.__module__.split(".")
    return inside[0] if package == "estimators" and inside else package


def wings() -> dict[str, list[str]]:
    """The names of the estimators in each wing, all in alphabetical order."""
    found: dict[str, list[str]] = {}
    for name, estimator in all_estimators().items():
        found.setdefault(wing_of(estimator), []).append(name)
    return dict(sorted(found.items()))


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
