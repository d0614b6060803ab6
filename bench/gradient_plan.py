"""The cells of a measurement of gradients: each estimator at each value of its knob."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.cells import Cell, Planned, cell_latent
from bench.errors import UserError
from bench.gradients import GradientSettings
from bench.profiles import Profile, validated
from estimators.base import Knob
from estimators.registry import all_estimators

MAX_BITS = 12
"""The exact gradient sums over 2^D bit-vectors for every example."""


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
    settings = validated(GradientSettings, profile.gradients, "gradients").model_dump(mode="json")
    trained = {}
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
            how = {"settings": settings, "model": trained[cell.task, cell.seed], "knob": {}}
            found += _variants(replace(item, cell=replace(cell, gradients=how)), data_dir)
    return found


def _variants(item: Planned, data_dir: Path | None) -> list[Planned]:
    """The cell as it is, and at the other values of the estimator's knob."""
    if item.skip is not None:
        return [item]
    latent = cell_latent(item.cell, data_dir)
    if latent.family == "bits" and latent.size > MAX_BITS:
        reason = f"the exact gradient needs all 2^{latent.size} bit-vectors; at most 2^{MAX_BITS}"
        return [replace(item, skip=reason)]
    estimator = all_estimators()[item.cell.estimator]
    settings = [item.cell.estimator_settings]
    if estimator.knob is not None:
        name, values = estimator.knob
        kind = type(settings[0][name])
        settings += [settings[0] | {name: kind(value)} for value in values]
    variants: list[dict[str, Any]] = [s for i, s in enumerate(settings) if s not in settings[:i]]
    return [
        Planned(_at(item.cell, chosen, estimator.knob), None)
        for chosen in variants
        if estimator.refusal(latent, estimator.Settings(**chosen)) is None
    ]


def _at(cell: Cell, settings: dict[str, Any], knob: Knob | None) -> Cell:
    """The cell with these settings of its estimator, and its knob noted."""
    stands = {} if knob is None else {knob.setting: settings[knob.setting]}
    gradients = {**(cell.gradients or {}), "knob": stands}
    return replace(cell, estimator_settings=settings, gradients=gradients)
