"""What the command line prints as tables."""

from collections.abc import Collection, Iterable

from pydantic import BaseModel
from rich.console import Console

from bench.printing import table_of
from bench.profiles import TrainingSettings, bundled_profiles, load_profile
from bench.search_space import ALWAYS
from estimators.base import Estimator
from estimators.registry import all_estimators
from estimators.searched import Choices, searched
from tasks.base import Task
from tasks.datasets import DATASETS
from tasks.registry import all_tasks


def print_listing(console: Console) -> None:
    """Tasks, estimators with the tasks that they run on, profiles and data sets."""
    tasks, estimators = all_tasks(), all_estimators()
    console.print(
        table_of(
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
        ),
        table_of(
            "estimators",
            ("name", "tasks", "bias", "decoder", "settings", "knobs", "a search varies", "source"),
            (_estimator(e, tasks.values()) for e in estimators.values()),
        ),
        table_of(
            "profiles",
            ("name", "what it is"),
            (
                (name, load_profile(name, [*tasks], [*estimators]).description)
                for name in bundled_profiles()
            ),
        ),
    )
    console.print(f"data sets: {', '.join(DATASETS)}", soft_wrap=True)


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
    return " ".join(f"{name}={field.default}" for name, field in model.model_fields.items())
