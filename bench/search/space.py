"""What a search may vary for an estimator on a task: declared settings, as Optuna knows them."""

from collections.abc import Collection, Mapping
from typing import Any, get_args

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial
from pydantic.fields import FieldInfo

from bench.cells.cell import Cell
from bench.errors import UserError, unknown
from bench.profiles.profile import TrainingSettings
from estimators.registry import all_estimators
from estimators.searched import Choices, Range, searched
from tasks.registry import all_tasks

Space = dict[str, BaseDistribution]
"""By the name of the setting as a profile has it: "training.learning_rate", "settings.decay"."""

ALWAYS = frozenset({"learning_rate"})
"""Settings of training that every search varies."""


def search_space(cell: Cell, costs: bool) -> Space:
    """The space of a cell's estimator on its task. It always holds the cell's own settings.

    Args:
        cell: where the search starts from.
        costs: vary also what takes more decoder calls.
    """
    task, estimator = all_tasks()[cell.task], all_estimators()[cell.estimator]
    of_training = ALWAYS | task.searched_training | estimator.searched_training
    found = {
        f"training.{name}": (declared, TrainingSettings.model_fields[name])
        for name, declared in searched(TrainingSettings).items()
        if name in of_training
    } | {
        f"settings.{name}": (declared, estimator.Settings.model_fields[name])
        for name, declared in searched(estimator.Settings).items()
    }
    start = starting_point(cell)
    return {
        name: _distribution(declared, field, start.get(name))
        for name, (declared, field) in found.items()
        if costs or not declared.costs
    }


def starting_point(cell: Cell) -> dict[str, Any]:
    """The values that a cell has, by the names of a space."""
    # λ of the task holds in training unless the training has its own.
    training = {
        name: cell.task_settings.get(name) if value is None else value
        for name, value in cell.training.items()
    }
    named = {f"training.{name}": value for name, value in training.items()}
    return named | {f"settings.{name}": value for name, value in cell.estimator_settings.items()}


def holds(among: BaseDistribution, value: Any) -> bool:
    """Whether a value is one that a search may try."""
    match among:
        case CategoricalDistribution():
            return value in among.choices
        case FloatDistribution() | IntDistribution():
            return value is not None and among.low <= value <= among.high
    return False


def check_names(names: Collection[str], spaces: Mapping[str, Space]) -> None:
    """Refuse names of settings that no space has, and spaces that have none of them.

    Args:
        names: what the user asked for.
        spaces: the whole space of each study, by its name.
    Raises:
        UserError: a name is unknown, or a study would have nothing to search.
    """
    known = sorted({name.partition(".")[2] for space in spaces.values() for name in space})
    for name in names:
        if name not in known:
            listing = f"there are {', '.join(known)}"
            raise unknown("parameter to search", name, known, listing)
    for study, space in spaces.items():
        if not any(name.partition(".")[2] in names for name in space):
            own = ", ".join(sorted(name.partition(".")[2] for name in space))
            raise UserError(f"{study} has none of {', '.join(names)} to search, it has {own}")


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """A trial's values for a space."""
    values: dict[str, Any] = {}
    for name, among in space.items():
        match among:
            case FloatDistribution():
                values[name] = trial.suggest_float(name, among.low, among.high, log=among.log)
            case IntDistribution():
                values[name] = trial.suggest_int(name, among.low, among.high, log=among.log)
            case CategoricalDistribution():
                values[name] = trial.suggest_categorical(name, among.choices)
    return values


def _distribution(
    declared: Range | Choices, field: FieldInfo, start: float | str | None
) -> BaseDistribution:
    """As Optuna knows it, widened to hold the value to start from where its scale can."""
    if isinstance(declared, Choices):
        return CategoricalDistribution(declared.values)
    low, high = declared.low, declared.high
    if isinstance(start, (int, float)) and (start > 0 or not declared.log):
        low, high = min(low, start), max(high, start)
    if int in (field.annotation, *get_args(field.annotation)):
        return IntDistribution(int(low), int(high), log=declared.log)
    return FloatDistribution(low, high, log=declared.log)
