"""Mistakes of the user's, told briefly."""

import difflib
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


class UserError(Exception):
    """Something the user can mend; the message says how, in one line or in a few."""


class StorageError(UserError):
    """What a run keeps its outcomes in can't be read or written: not a cell ends, but the run."""


def not_written(what: str, error: OSError) -> StorageError:
    """The error for what a full disk, say, does not take.

    Args:
        what: was to be stored, and where.
        error: the system's.
    """
    reason = (error.strerror or str(error)).lower()
    return StorageError(f"{what} can't be stored: {reason}: mend that, and run the same command")


def unknown(kind: str, name: str, known: Collection[str], listing: str) -> UserError:
    """The error for a name that is not there, with the nearest that is.

    Args:
        kind: what was named, such as "estimator".
        name: what the user wrote.
        known: the names there are.
        listing: how to see them all.
    """
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.4)
    hint = f"did you mean {by_lower[near[0]]!r}? " if near else ""
    return UserError(f"no {kind} {name!r}: {hint}{listing}")


def check_words(words: Iterable[str]) -> None:
    """Refuse a command line that is no UTF-8, which no row of a cell could hold.

    Raises:
        UserError: with the word that is none.
    """
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{word!r} is no UTF-8: give another name") from error


def invalid(where: str, error: "ValidationError", model: "type[BaseModel]") -> UserError:
    """A pydantic error in one line, with the nearest setting if one is unknown."""
    first = error.errors()[0]
    if not first["loc"]:  # each is valid, and they do not go together
        return UserError(f"{where}: {first['msg'].removeprefix('Value error, ')}")
    *parents, name = (str(part) for part in first["loc"])
    place = ".".join([where, *parents]) if parents else where
    if first["type"] == "extra_forbidden":
        known = _fields(model, parents)
        listing = f"there are {', '.join(sorted(known))}" if known else "it has none"
        return unknown(f"setting of {place}", name, known, listing)
    if first["type"] == "missing":
        return UserError(f"{place}: {name} is missing")
    if first["type"] in ("dict_type", "model_type"):
        return UserError(f"{place}: {name} = {first['input']!r}: give a table of settings")
    return UserError(f"{place}: {name} = {first['input']!r}: {first['msg'].lower()}")


def _fields(model: "type[BaseModel]", path: Sequence[str]) -> Collection[str]:
    """The fields of the model that is found at a path, which leads through dicts of models."""
    for name in path:
        field = model.model_fields.get(name)
        if field is None:  # the key of a dict of models
            continue
        models = [part for part in get_args(field.annotation) if hasattr(part, "model_fields")]
        model = models[0] if models else model
    return model.model_fields
