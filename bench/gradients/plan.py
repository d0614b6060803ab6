"""The cells of a measurement of gradients: estimators as they are set, and with settings turned."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.cells.building import Latent
from bench.cells.cell import Planned, cell_latent
from bench.errors import UserError, invalid, unknown
from bench.gradients.measure import GradientSettings
from bench.profiles.profile import Profile, validated
from estimators.base import Estimator
from estimators.registry import all_estimators

MOST_SUMMED = 2**16
"""Most assignments that the exact gradient sums over for every example, where they are not the
categories of a single variable."""

COUNTS = ("samples", "pairs")
"""Settings of samplers that say how many they take."""


def plan_gradients(
    planned: Sequence[Planned],
    models: Sequence[Planned],
    profile: Profile,
    data_dir: Path | None = None,
) -> list[Planned]:
    """Cells that measure the estimators of a training grid.

    Args:
        planned: cells of the grid, over all estimators to measure.
        models: cells of the same tasks and seeds, of the estimator that trains the models.
        profile: where the settings of the measurement come from.
        data_dir: folder with the data sets that are not bundled.
    Raises:
        UserError: a setting is wrong, or the models can't be trained so.
    """
    settings = validated(GradientSettings, profile.gradients, "gradients")
    trained: dict[tuple[str, int], dict[str, Any]] = {}
    for item in models:
        if item.skip is not None:
            raise UserError(f"models can't be trained so: {item.skip}; name another --trained-by")
        trained[item.cell.task, item.cell.seed] = {
            "estimator": item.cell.estimator,
            "estimator_settings": item.cell.estimator_settings,
            "training": item.cell.training,
        }
    found = []
    for item in planned:
        cell = item.cell
        if all_estimators()[cell.estimator].trains_latent:
            model = trained[cell.task, cell.seed]
            how = {"settings": settings.model_dump(mode="json"), "model": model, "knob": {}}
            # All are judged on the same batches: those of the model's training.
            training = cell.training | {"batch_size": model["training"]["batch_size"]}
            measuring = replace(cell, gradients=how, training=training)
            found += _variants(replace(item, cell=measuring), settings.calls, data_dir)
    return found


def _variants(item: Planned, calls: Sequence[int], data_dir: Path | None) -> list[Planned]:
    """The cell as it is, and with one setting of the estimator turned at a time."""
    if item.skip is not None:
        return [item]
    cell, latent = item.cell, cell_latent(item.cell, data_dir)
    if latent.space.count > MOST_SUMMED and not latent.space.single:
        reason = f"the exact gradient sums over every z: at most {MOST_SUMMED}, not {latent.space}"
        return [replace(item, skip=reason)]
    estimator, base = all_estimators()[cell.estimator], cell.estimator_settings
    if estimator.objective != "elbo":
        reason = f"{estimator.name} descends a bound on several samples, and this the ELBO"
        return [replace(item, skip=reason)]
    if estimator.own_model:
        reason = f"z of {estimator.name} lies between assignments, and this sums over these alone"
        return [replace(item, skip=reason)]
    found = [item]
    for setting, value in _turned(estimator, latent, base, calls):
        chosen = base | {setting: value}
        if value != base[setting] and _takes(estimator, latent, chosen):
            gradients = {**(cell.gradients or {}), "knob": {setting: value}}
            turned = replace(cell, estimator_settings=chosen, gradients=gradients)
            found.append(Planned(turned, None))
    return found


def _takes(estimator: type[Estimator], latent: Latent, values: dict[str, Any]) -> bool:
    """Whether settings go together, and with the latent variable.

    Raises:
        UserError: one is out of range, whatever the others are.
    """
    try:
        settings = estimator.Settings(**values)
    except ValidationError as error:
        if not error.errors()[0]["loc"]:  # each is valid, and they do not go together
            return False
        raise invalid(f"knob of {estimator.name}", error, estimator.Settings) from error
    return estimator.refusal(latent.space, settings) is None


def _turned(
    estimator: type[Estimator], latent: Latent, base: dict[str, Any], calls: Sequence[int]
) -> Iterator[tuple[str, float]]:
    """Settings with the values to measure an estimator at."""
    for setting in (count for count in COUNTS if count in base):
        for wanted in calls:
            yield from ((setting, n) for n in _samples(estimator, latent, base, setting, wanted))
    for knob in estimator.knobs:
        if knob.setting not in base:
            listing = f"there are {', '.join(base)}" if base else "it has none"
            raise unknown(f"setting for a knob of {estimator.name}", knob.setting, base, listing)
        kind = int if isinstance(base[knob.setting], int) else float
        yield from ((knob.setting, kind(value)) for value in knob.values)


def _samples(
    estimator: type[Estimator], latent: Latent, base: dict[str, Any], setting: str, calls: int
) -> Iterator[int]:
    """The number of samples at which an estimator makes so many decoder calls, if there is one."""
    for samples in range(1, calls + 1):
        with suppress(ValidationError):  # it needs more samples than that
            settings = base | {setting: samples}
            made = estimator.make(latent.space, features=latent.features, **settings)
            if made.calls_per_row == calls:
                yield samples
