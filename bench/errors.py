"""Mistakes of the user's, told in one line."""

import difflib
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """Something the user can mend; the message is one line that says how."""


def unknown(kind: str, name: str, known: Collection[str], listing: str) -> UserError:
    """The error for a name that is not there, with the nearest that is.

    Args:
        kind: what was named, such as "estimator".
        name: what the user wrote.
        known: the names there are.
        listing: how to see them all.
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"no {kind} {name!r}: {hint}{listing}")


def invalid(where: str, error: "ValidationError", known: Collection[str]) -> UserError:
    """A pydantic error in one line, with the nearest setting if one is unknown."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        listing = f"there are {', '.join(sorted(known))}" if known else "it has none"
        return unknown(f"setting of {where}", path, known, listing)
    return UserError(f"{where}: {path} = {first['input']!r}: {first['msg'].lower()}")
