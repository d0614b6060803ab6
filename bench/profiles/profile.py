"""Profiles: how long, how large and with which settings to run, as TOML."""

import math
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError

from bench.cells.evaluation import EvaluationSettings
from bench.errors import UserError, invalid, unknown
from estimators.searched import Range

S = TypeVar("S", bound=BaseModel)

MOST_SEEDS = 1000
"""More is a slip of the keyboard; those of a search begin far above, at 10,000."""

BUDGET = ("epochs", "patience", "warm_start_epochs", "warm_start_learning_rate")
"""Settings of training that say how much of it there is. The size of batches is an estimator's own,
as its learning rate is: the published ones differ within a table (`paper-128`)."""

COMMON = (*BUDGET, "evaluate_every")
"""Those that all estimators of a task share: who looks more often has more to choose from."""


class TrainingSettings(BaseModel, extra="forbid", frozen=True):
    """How a cell is trained. Adam throughout."""

    epochs: int = Field(10, ge=0, description="passes over the training data")
    warm_start_epochs: int = Field(
        0, ge=0, description="passes over the labelled rows alone, before these"
    )
    warm_start_learning_rate: float = Field(1e-3, gt=0, description="in these passes")
    evaluate_every: int = Field(1, ge=1, description="epochs between evaluations")
    patience: int | None = Field(
        None, ge=1, description="evaluations without a better one that end training early"
    )
    batch_size: int = Field(64, ge=1, description="rows in a batch")
    learning_rate: Annotated[float, Range(1e-4, 3e-2, log=True)] = Field(
        1e-3, gt=0, description="for encoder and decoder"
    )
    weight_decay: float = Field(0.0, ge=0, description="for encoder and decoder")
    baseline_learning_rate: Annotated[float, Range(1e-4, 3e-2, log=True)] = Field(
        1e-3, gt=0, description="for the estimator's own"
    )
    entropy_weight: Annotated[float | None, Range(0, 0.5)] = Field(
        None, ge=0, description="λ in training, in place of the task's that is reported"
    )


class Found(BaseModel, extra="forbid", frozen=True):
    """Where values that a search found come from; see docs/TUNING.md."""

    study: str
    trial: int
    values: list[str]
    """Their names, such as "training.learning_rate"."""


class Overrides(BaseModel, extra="forbid", frozen=True):
    """Settings of one estimator on one task."""

    settings: dict[str, Any] = {}
    training: dict[str, Any] = {}
    found: Found | None = None


class TaskProfile(BaseModel, extra="forbid", frozen=True):
    """Settings of one task."""

    settings: dict[str, Any] = {}
    training: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    estimators: dict[str, Overrides] = {}


class Profile(BaseModel, extra="forbid", frozen=True):
    """A whole profile. Later parts override earlier ones: training, then that of the task, then
    that of the estimator on the task."""

    description: str = Field("", description="what the profile is, in a line")
    seeds: int = Field(
        2,
        ge=1,
        le=MOST_SEEDS,
        strict=True,
        description="how many, from 0, where --seeds does not say",
    )
    estimators: list[str] = Field(
        [], description='which "all" are, in their order; every one there is, if none is named'
    )
    training: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    gradients: dict[str, Any] = {}
    tasks: dict[str, TaskProfile] = {}

    def task_settings(self, task: str) -> dict[str, Any]:
        """Settings for the task, the same for all estimators."""
        return self.tasks.get(task, TaskProfile()).settings

    def estimator_settings(self, task: str, estimator: str) -> dict[str, Any]:
        """Settings for the estimator on this task."""
        part = self.tasks.get(task, TaskProfile())
        return part.estimators.get(estimator, Overrides()).settings

    def training_settings(self, task: str, estimator: str) -> TrainingSettings:
        """Settings of the training of a cell.

        Raises:
            UserError: an unknown setting, a value out of range, or one of `COMMON` for an estimator
                alone.
        """
        part = self.tasks.get(task, TaskProfile())
        own = part.estimators.get(estimator, Overrides()).training
        for name in COMMON:
            if name in own:
                raise UserError(
                    f"training of {estimator} on {task}: {name} is the same for all estimators of "
                    f"a task: give it in [tasks.{task}.training]"
                )
        merged = self.training | part.training | own
        return validated(TrainingSettings, merged, f"training of {estimator} on {task}")

    def found(self) -> dict[str, Found]:
        """Where the values that a search found come from, by "task/estimator"."""
        return {
            f"{task}/{estimator}": own.found
            for task, part in self.tasks.items()
            for estimator, own in part.estimators.items()
            if own.found is not None
        }

    def with_values(
        self, task: str, estimator: str, values: dict[str, Any], found: Found | None = None
    ) -> Self:
        """The profile with other values for an estimator on a task.

        Args:
            task, estimator: whose values they are.
            values: by names such as "training.learning_rate" and "settings.decay".
            found: where they come from.
        """
        part = self.tasks.get(task, TaskProfile())
        own = part.estimators.get(estimator, Overrides())
        settings, training = with_named(own.settings, own.training, values)
        changed = Overrides(settings=settings, training=training, found=found)
        task_profile = part.model_copy(
            update={"estimators": part.estimators | {estimator: changed}}
        )
        return self.model_copy(update={"tasks": self.tasks | {task: task_profile}})

    def with_dataset(self, task: str, dataset: str) -> Self:
        """The profile with a data set for a task."""
        part = self.tasks.get(task, TaskProfile())
        changed = part.model_copy(update={"settings": part.settings | {"dataset": dataset}})
        return self.model_copy(update={"tasks": self.tasks | {task: changed}})

    def evaluation_settings(self, task: str) -> EvaluationSettings:
        """Settings of the evaluation on a task, the same for all estimators.

        Raises:
            UserError: an unknown setting or a value out of range.
        """
        merged = self.evaluation | self.tasks.get(task, TaskProfile()).evaluation
        return validated(EvaluationSettings, merged, f"evaluation on {task}")


def with_named(
    settings: dict[str, Any], training: dict[str, Any], values: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of an estimator and of its training, with values by names such as
    "training.learning_rate" and "settings.decay" in place of what is there."""
    parts = {"settings": {**settings}, "training": {**training}}
    for name, value in values.items():
        where, _, setting = name.partition(".")
        parts[where][setting] = value
    return parts["settings"], parts["training"]


def validated(model: type[S], values: dict[str, Any], where: str) -> S:
    """Settings from plain values.

    Raises:
        UserError: an unknown setting, a value out of range, a number in quotes, or a truth value
            for one, in one line that starts by `where`.
    """
    try:
        settings = model(**values)
    except ValidationError as error:
        raise invalid(where, error, model) from error
    for name, given in values.items():
        if isinstance(given, float) and not math.isfinite(given):
            raise UserError(f"{where}: {name} = {given}: give a finite number")
        if isinstance(given, str) and isinstance(getattr(settings, name, None), int | float):
            raise UserError(f"{where}: {name} = {given!r}: give it without quotes")
        if isinstance(given, bool) and not isinstance(getattr(settings, name, None), bool):
            raise UserError(f"{where}: {name} = {str(given).lower()}: give no truth value")
    return settings


def bundled_profiles() -> dict[str, Path]:
    """The profiles that come with the project, by name."""
    folder = Path(str(resources.files("bench.profiles")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_profile(name: str, tasks: list[str], estimators: list[str]) -> Profile:
    """A bundled profile by name, or a TOML file by path.

    Args:
        name: what the user gave.
        tasks, estimators: all registered names, which a profile may use.
    Raises:
        UserError: there is none, or it is not valid.
    """
    bundled = bundled_profiles()
    path = bundled.get(name, Path(name).expanduser())
    if name not in bundled and path.suffix != ".toml":
        listing = f"there are {', '.join(bundled)}, or give the path of a TOML file"
        raise unknown("profile", name, bundled, listing)
    try:
        profile = Profile(**tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise UserError(f"profile {path}: {(error.strerror or 'unreadable').lower()}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"profile {path} is no valid TOML: {error}") from error
    except ValidationError as error:
        raise invalid(f"profile {name}", error, Profile) from error
    see = "see run_bench.py list"
    for estimator in profile.estimators:
        if estimator not in estimators:
            raise unknown(f"estimator of profile {name}", estimator, estimators, see)
    for task, part in profile.tasks.items():
        if task not in tasks:
            raise unknown(f"task of profile {name}", task, tasks, see)
        for estimator in part.estimators:
            if estimator not in estimators:
                raise unknown(f"estimator of profile {name}", estimator, estimators, see)
    return profile
