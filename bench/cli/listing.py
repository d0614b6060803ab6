"""What `run_bench.py list` prints: what there is as tables, every setting as TOML."""

import json
from collections.abc import Collection, Iterable
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Console

from bench.cells.evaluation import EvaluationSettings
from bench.cli.printing import print_line, print_table
from bench.gradients.measure import GradientSettings
from bench.profiles.profile import Profile, TrainingSettings, bundled_profiles, load_profile
from bench.search.space import ALWAYS
from estimators.base import Estimator
from estimators.registry import all_estimators
from estimators.searched import Choices, searched
from tasks.base import Task
from tasks.data.datasets import DATASETS
from tasks.registry import all_tasks

NARROWER = """\
# The program's defaults, which count where a profile says nothing. A task can have settings of its
# own, in [tasks.TASK.training] and [tasks.TASK.evaluation], and an estimator on it, in
# [tasks.TASK.estimators.ESTIMATOR.training]: the narrower one counts."""


def print_listing(console: Console) -> None:
    """Tasks, estimators with the tasks that they run on, profiles and data sets."""
    tasks, estimators = all_tasks(), all_estimators()
    print_table(
        console,
        "tasks",
        ("name", "latent", "settings", "a search varies", "judged by", "source"),
        (
            (
                t.name,
                t.family,
                _settings(t.Settings),
                _searched(TrainingSettings, ALWAYS | t.searched_training),
                " ".join(t.metrics),
                t.citation,
            )
            for t in tasks.values()
        ),
        fold=True,
    )
    print_table(
        console,
        "estimators",
        ("name", "tasks", "bias", "decoder", "settings", "knobs", "a search varies", "source"),
        (_estimator(e, tasks.values()) for e in estimators.values()),
        fold=True,
    )
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


def print_settings(console: Console) -> None:
    """Every setting of a profile with its default and what it is, as TOML."""
    print_line(console, NARROWER)
    _print_section(console, None, Profile, ("description", "seeds"))
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


def _estimator(estimator: type[Estimator], tasks: Iterable[type[Task]]) -> tuple[str, ...]:
    runs = [task.name for task in tasks if task.family in estimator.families]
    decoder = "relaxed z" if estimator.relaxed else "hard z"
    settings = _settings(estimator.Settings)
    knobs = " ".join(knob.setting for knob in estimator.knobs)
    varied = [_searched(TrainingSettings, estimator.searched_training)]
    varied += [_searched(estimator.Settings, estimator.Settings.model_fields)]
    return (
        estimator.name,
        " ".join(runs),
        estimator.bias,
        decoder,
        settings,
        knobs,
        " ".join(filter(None, varied)),
        estimator.citation,
    )


def _searched(model: type[BaseModel], names: Collection[str]) -> str:
    """What a search may vary of a model, with the ends of each range."""
    return " ".join(
        f"{name}={'|'.join(d.values) if isinstance(d, Choices) else f'{d.low:g}…{d.high:g}'}"
        for name, d in searched(model).items()
        if name in names
    )


def _settings(model: type[BaseModel]) -> str:
    return " ".join(f"{name}={value}" for name, value in model())
