"""What `run_bench.py list` prints: what there is as tables, every setting as TOML."""

import json
from collections.abc import Collection, Iterator
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Console

from bench.cells.evaluation import EvaluationSettings
from bench.gradients.measure import GradientSettings
from bench.printing import print_line, print_table
from bench.profiles.profile import Profile, TrainingSettings, bundled_profiles, load_profile
from bench.search.space import ALWAYS
from estimators.base import Estimator
from estimators.registry import all_estimators, wings
from estimators.searched import Choices, searched
from tasks.base import Task
from tasks.data.datasets import DATASETS
from tasks.registry import all_tasks

NARROWER = """\
# The program's defaults, which count where a profile says nothing. A task can have settings of its
# own, in [tasks.TASK.training] and [tasks.TASK.evaluation], and an estimator on it, in
# [tasks.TASK.estimators.ESTIMATOR.training]: the narrower one counts."""


def print_listing(console: Console) -> None:
    """Tasks, estimators by wing, profiles and data sets."""
    tasks, estimators = all_tasks(), all_estimators()
    print_table(
        console,
        "tasks",
        ("name", "latent", "settings", "a search varies", "judged by", "source"),
        (
            (
                t.name,
                t.space_type.name,
                _settings(t.Settings),
                _searched(TrainingSettings, ALWAYS | t.searched_training),
                " ".join(t.metrics),
                t.citation,
            )
            for t in tasks.values()
        ),
        fold=True,
    )
    _print_estimators(console)
    print_table(
        console,
        "profiles",
        ("name", "what it is"),
        (
            (name, load_profile(name, [*tasks], [*estimators]).description)
            for name in bundled_profiles()
        ),
        fold=True,
    )
    console.print(f"data sets: {', '.join(DATASETS)}", soft_wrap=True)


def _print_estimators(console: Console) -> None:
    """Estimators by wing, and what is to be said of some of them in a line."""
    rows: list[tuple[str, ...]] = []
    lines = ["* a knob: `gradients` measures at several values of it, as of samples"]
    for wing, names in wings().items():
        own = [all_estimators()[name] for name in names]
        rows += [(f"{wing}:",), *map(_estimator, own)]
        lines += [f"{one.name} skips {tasks}" for one in own if (tasks := _skipped(one))]
    header = ("name", "bias", "decoder", "settings (searched range) *", "source")
    print_table(console, "estimators", header, rows, fold=True)
    for line in lines:
        print_line(console, line)


def _skipped(estimator: type[Estimator]) -> str:
    """The tasks that an estimator does not take, with the reasons."""
    found: dict[str, list[str]] = {}
    for task in all_tasks().values():
        if reason := _refusal(estimator, task):
            found.setdefault(reason, []).append(task.name)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in found.items())


def _refusal(estimator: type[Estimator], task: type[Task]) -> str | None:
    """Why an estimator does not take a task, whatever the settings of both; None if it does."""
    if not issubclass(task.space_type, estimator.spaces):
        return f"it takes {' or '.join(space.name for space in estimator.spaces)} only"
    if estimator.takes_slopes and not task.accepts_relaxed:
        return "it takes slopes, and the decoder no points to take them at"
    if estimator.own_model and task.has_labels:
        return "its label is a category, and z lies between categories"
    return None


def print_settings(console: Console) -> None:
    """Every setting of a profile with its default and what it is, as TOML."""
    print_line(console, NARROWER)
    _print_section(console, None, Profile, ("description", "seeds", "estimators"))
    _print_section(console, "training", TrainingSettings)
    _print_section(console, "evaluation", EvaluationSettings)
    _print_section(console, "gradients", GradientSettings)
    for task in all_tasks().values():
        _print_section(console, f"tasks.{task.name}.settings", task.Settings)
    for estimator in all_estimators().values():
        section = f"tasks.TASK.estimators.{estimator.name}.settings"
        _print_section(console, section, estimator.Settings)


def _print_section(
    console: Console,
    section: str | None,
    model: type[BaseModel],
    names: Collection[str] | None = None,
) -> None:
    """Settings of a section, all or those that are named; nothing of one that has none."""
    lines = [
        (_assignment(name, field), _meaning(field))
        for name, field in model.model_fields.items()
        if names is None or name in names
    ]
    if lines:
        print_line(console, "" if section is None else f"\n[{section}]")
    width = max((len(assignment) for assignment, _ in lines), default=0)
    for assignment, meaning in lines:
        print_line(console, f"{assignment:{width}}  # {meaning}")


def _assignment(name: str, field: FieldInfo) -> str:
    """A setting with its default; without one it is no more than a comment."""
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return f"# {name} =" if default is None else f"{name} = {json.dumps(default)}"


def _meaning(field: FieldInfo) -> str:
    """What a setting is, with the values that there are if it names one of a few."""
    few = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return f"{field.description or ''} {'(' + ' | '.join(few) + ')' if few else ''}".rstrip()


def _estimator(estimator: type[Estimator]) -> tuple[str, ...]:
    knobs = [knob.setting for knob in estimator.knobs]
    own = _with_ranges(estimator.Settings, estimator.Settings.model_fields, knobs)
    training = _with_ranges(TrainingSettings, estimator.searched_training)
    decoder = "slopes" if estimator.takes_slopes else "costs"
    settings = " ".join([*own, *training])
    return estimator.name, estimator.bias, decoder, settings, estimator.citation


def _with_ranges(
    model: type[BaseModel], names: Collection[str], knobs: Collection[str] = ()
) -> Iterator[str]:
    """Settings of a model as they are by default, with what a search varies them in, and a star
    where `gradients` turns them."""
    ranges = _ranges(model)
    for name, value in model():
        if name in names:
            searched_in = f" ({ranges[name]})" if name in ranges else ""
            yield f"{name}={value}{searched_in}{'*' * (name in knobs)}"


def _searched(model: type[BaseModel], names: Collection[str]) -> str:
    """What a search may vary of a model, with the ends of each range."""
    return " ".join(f"{name}={ends}" for name, ends in _ranges(model).items() if name in names)


def _ranges(model: type[BaseModel]) -> dict[str, str]:
    """The ends of the range that a search varies a setting in, or all choices, by its name."""
    return {
        name: "|".join(d.values) if isinstance(d, Choices) else f"{d.low:g}…{d.high:g}"
        for name, d in searched(model).items()
    }


def _settings(model: type[BaseModel]) -> str:
    return " ".join(f"{name}={value}" for name, value in model())
