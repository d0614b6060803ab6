"""What the registries of tasks and of estimators share: classes by name, each from some file.

A class is checked when it registers. A file that can't be used is told in a line.
"""

import importlib
import inspect
import pkgutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_args, get_origin

from pydantic import TypeAdapter, ValidationError


class Named(Protocol):
    """What a class is known by."""

    name: ClassVar[str]


T = TypeVar("T", bound=Named)


class RegistrationError(Exception):
    """A class that can't be registered, or a file that can't be imported; the message is a line."""


class Registry(Generic[T]):
    """Classes by name.

    Args:
        base: what they derive from. They have to give its class variables that have no value, each
            of the type that is written there.
    """

    def __init__(self, base: type[Any]) -> None:
        self._classes: dict[str, type[T]] = {}
        self._variables = {
            name: TypeAdapter(*get_args(hint))
            for name, hint in inspect.get_annotations(base).items()
            if get_origin(hint) is ClassVar  # type: ignore[comparison-overlap]
        }

    def add(self, added: type[T]) -> None:
        """Add a class under its name.

        Raises:
            RegistrationError: it lacks something, a class variable is of another type than its
                base says, or the name is taken by another class.
        """
        lacking = {name for name in self._variables if not hasattr(added, name)}
        lacking |= getattr(added, "__abstractmethods__", frozenset())
        if lacking:
            raise RegistrationError(f"{added.__name__} has no {', '.join(sorted(lacking))}")
        for variable, type_of_it in self._variables.items():
            value = getattr(added, variable)
            try:
                type_of_it.validate_python(value, strict=True)
            except ValidationError as error:
                wrong = f"{added.__name__} has {variable} = {value!r}"
                raise RegistrationError(f"{wrong}: {error.errors()[0]['msg'].lower()}") from error
        other = self._classes.setdefault(added.name, added)
        if other is not added:
            where = f"{other.__module__}.{other.__qualname__}"
            raise RegistrationError(
                f"{added.__name__}: the name {added.name!r} is taken by {where}"
            )

    def by_name(self) -> dict[str, type[T]]:
        """Every class that has been added, in alphabetical order of the names."""
        return dict(sorted(self._classes.items()))


def import_folder(package: ModuleType) -> None:
    """Import all modules of a package.

    Raises:
        RegistrationError: one can't be imported.
    """
    for module in pkgutil.iter_modules(package.__path__):
        name = f"{package.__name__}.{module.name}"
        with _told_in_a_line(name):
            importlib.import_module(name)


def import_entry_points(group: str) -> None:
    """Import the modules that entry points of a group name.

    Raises:
        RegistrationError: one can't be imported.
    """
    for entry in entry_points(group=group):
        with _told_in_a_line(entry.module):
            entry.load()


@contextmanager
def _told_in_a_line(module: str) -> Iterator[None]:
    """Tell what keeps a module from being imported by file and line."""
    try:
        yield
    except RegistrationError as error:
        raise RegistrationError(f"{_place(error, module)}: {error}") from error
    except SyntaxError as error:
        raise RegistrationError(f"{_line(error.filename, error.lineno)}: {error.msg}") from error
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise RegistrationError(f"{_place(error, module)}: {said}") from error


def _place(error: Exception, module: str) -> str:
    """The last line of the module's own package that an error came through."""
    package, place = module.partition(".")[0], module
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] == package and name != f"{package}.registry":
            place = _line(frame.f_code.co_filename, line)
    return place


def _line(file: str | None, line: int | None) -> str:
    """A line of a file, which is named as it is from here."""
    path = Path(file or "?")
    here = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{here}, line {line}"
