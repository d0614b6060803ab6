"""Estimators by name. A file in this folder, or another package's entry point, adds one.

An entry point of the group `discrete_gradients.estimators` names a module that registers its
estimators when it is imported.
"""

import importlib
import pkgutil
import sys
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar

from pydantic import ValidationError

from estimators.base import Estimator
from estimators.spaces import Space

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
    for wing in pkgutil.iter_modules(sys.modules["estimators"].__path__, "estimators."):
        package = importlib.import_module(wing.name)
        if wing.ispkg and wing.name != "estimators.mappings":  # which stands alone
            for module in pkgutil.iter_modules(package.__path__, f"{wing.name}."):
                importlib.import_module(module.name)
    for entry in entry_points(group="discrete_gradients.estimators"):
        entry.load()
    return dict(sorted(_registered.items()))


def make(name: str, space: Space, *, features: int = 0, **settings: object) -> Estimator:
    """An estimator by name, in training mode.

    Args:
        name: as `run_bench.py list` and `all_estimators` have them.
        space: of the latent variable.
        features: length of the input vectors, for an estimator with a network of them.
        settings: its own; the rest as by default.
    Raises:
        ValueError: there is no such estimator or setting, a value is out of range, or the estimator
            can't train such a variable; the message is a line that says which.
    """
    known = all_estimators()
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"no estimator is named {name!r}: {hint}")
    kind = known[name]
    unknown = [setting for setting in settings if setting not in kind.Settings.model_fields]
    if unknown:
        there = ", ".join(kind.Settings.model_fields) or "none"
        raise ValueError(f"{name}: there is no setting {unknown[0]}; there are {there}")
    try:
        checked = kind.Settings(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # each is valid, and they do not go together
            raise ValueError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None
        given = f"{first['loc'][0]} = {first['input']!r}"
        raise ValueError(f"{name}: {given}: {first['msg'].lower()}") from None
    refusal = kind.refusal(space, checked)
    if refusal is not None:
        raise ValueError(refusal)
    try:
        return kind(space, checked, features)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
