"""The tasks and estimators that there are, checked: faulty files of a user are told in a line."""

import inspect
import json
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from analysis.schema import NAME
from bench.errors import UserError, invalid, unknown
from bench.profiles.profile import TrainingSettings
from estimators.base import Estimator
from estimators.registry import all_estimators, wings
from estimators.searched import searched
from tasks.base import Task
from tasks.registry import all_tasks


def check_registered() -> None:
    """Import all tasks and estimators, and see that each gives what its base class asks for.

    Raises:
        UserError: a file can't be imported, or a class in it lacks something.
    """
    with _told_in_a_line("tasks"):
        tasks = all_tasks()
    with _told_in_a_line("estimators"):
        estimators = all_estimators()
    _check(tasks, Task)
    _check(estimators, Estimator)
    for task in tasks.values():
        _check_metrics(task)


def no_single_estimator(name: str, known: Collection[str], listing: str) -> UserError:
    """The error for a name that is not there where one estimator is wanted.

    Args:
        name: what the user wrote, perhaps a wing's.
        known: the names there are.
        listing: how to see them all.
    """
    check_registered()  # a report has not looked at them
    if name in wings():
        return UserError(f"{name!r} is a wing: name one estimator; {listing}")
    return unknown("estimator", name, known, listing)


def _check(classes: Mapping[str, type], base: type) -> None:
    """See that classes have the methods and the class variables that have no value in their base,
    each variable of the type that is written there.

    Raises:
        UserError: one lacks something, or a class variable is of another type.
    """
    variables = {
        name: TypeAdapter[Any](*get_args(hint))
        for name, hint in inspect.get_annotations(base).items()
        if get_origin(hint) is ClassVar  # type: ignore[comparison-overlap]
    }
    for one in classes.values():
        lacking = {name for name in variables if not hasattr(one, name)}
        lacking |= getattr(one, "__abstractmethods__", frozenset())
        if lacking:
            raise UserError(f"{_start(one)}: {one.__name__} has no {', '.join(sorted(lacking))}")
        for name, kind in variables.items():
            try:
                kind.validate_python(getattr(one, name), strict=True)
            except ValidationError as error:
                wrong = f"{_start(one)}: {one.__name__} has {name} = {getattr(one, name)!r}"
                raise UserError(f"{wrong}: {error.errors()[0]['msg'].lower()}") from error
        _check_name_and_settings(one)


def _check_name_and_settings(one: Any) -> None:
    """See that a name can stand in paths and commands, and that settings are refused where they
    are unknown, can be stored, have defaults that go together, and are known to a search.

    Raises:
        UserError: one of these is not so.
    """
    if not NAME.fullmatch(one.name) or one.name == "all":
        said = "give letters, digits and dashes, and not all"
        raise UserError(f"{_start(one)}: {one.__name__} has name = {one.name!r}: {said}")
    where = f"{_start(one)}: Settings of {one.__name__}"
    if one.Settings.model_config.get("extra") != "forbid":
        raise UserError(f'{where} take names that they do not have: give extra="forbid"')
    try:
        json.dumps(one.Settings().model_dump())
    except ValidationError as error:
        raise invalid(f"{where} by default", error, one.Settings) from error
    except TypeError as error:
        raise UserError(f"{where}: {str(error).lower()}") from error
    known = searched(TrainingSettings)
    for name in sorted(one.searched_training - {*known}):
        has = f"{_start(one)}: {one.__name__} has searched_training = {{{name!r}}}"
        raise UserError(f"{has}: there are {', '.join(known)}")


def _check_metrics(task: type[Task]) -> None:
    """See that a task is judged by what an evaluation on the way can give.

    Raises:
        UserError: it is not.
    """
    said = None
    if not task.metrics:
        said = "name one at least"
    elif task.metrics[0] == "nll":
        said = "nll is not computed on the way: name another first"
    elif "elbo" in task.metrics and not getattr(task, "is_likelihood", True):
        said = "there is no elbo where is_likelihood is False"
    elif "accuracy" in task.metrics and task.correct is Task.correct:
        said = "there is no accuracy without the method correct"
    if said is not None:
        raise UserError(f"{_start(task)}: {task.__name__} has metrics = {task.metrics}: {said}")


@contextmanager
def _told_in_a_line(package: str) -> Iterator[None]:
    """Tell what keeps a package's modules, or an entry point, from being imported."""
    try:
        yield
    except SyntaxError as error:
        raise UserError(f"{_line(error.filename, error.lineno)}: {error.msg}") from error
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{_place(error, package)}: {said}") from error


def _place(error: Exception, package: str) -> str:
    """The last line that an error came through of the package of the module that was imported."""
    place, root = package, None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if root is None and frame.f_code.co_name == "<module>":
            root = module.partition(".")[0]
        if module.partition(".")[0] == root and not module.endswith(".registry"):
            place = _line(frame.f_code.co_filename, line)
    return place


def _start(one: type) -> str:
    """Where a class starts."""
    return _line(inspect.getsourcefile(one), inspect.getsourcelines(one)[1])


def _line(file: str | None, line: int | None) -> str:
    """A line of a file, which is named as it is from here."""
    path = Path(file or "?")
    here = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{here}, line {line}"
