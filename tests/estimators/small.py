"""Settings that keep enumeration small, of any estimator."""

import itertools
from typing import get_args

from pydantic import BaseModel, ValidationError

from estimators.base import Estimator

RANDOM_START = "lp-sparsemap"
"""A solver whose q is no function of the scores alone, so that it has no central differences."""


def small_settings(estimator: type[Estimator]) -> list[dict[str, object]]:
    """Settings that keep enumeration small: the least whole numbers that are allowed, then each
    setting in turn at the other values that are at hand for it."""
    values = {
        name: found
        for name, field in estimator.Settings.model_fields.items()
        if (found := _values(estimator.Settings, name, field.annotation))
    }
    least = {name: found[0] for name, found in values.items()}
    others = [least | {name: value} for name, found in values.items() for value in found[1:]]
    return [least, *others]


def _values(settings: type[BaseModel], name: str, annotation: object) -> list[object]:
    """Every choice of a setting, or its two least whole numbers; none for any other number."""
    if annotation is bool:
        return [False, True]
    if annotation is int:
        return list(itertools.islice((n for n in range(64) if _takes(settings, name, n)), 2))
    choices = [value for value in get_args(annotation) if value != RANDOM_START]
    return [value for value in choices if _takes(settings, name, value)]


def _takes(settings: type[BaseModel], name: str, value: object) -> bool:
    try:
        settings(**{name: value})
    except ValidationError:
        return False
    return True
