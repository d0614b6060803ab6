"""Which settings estimators are measured at, and on what."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from pydantic import ValidationError

from bench.cells.building import Latent
from bench.cells.cell import cell_latent, plan
from bench.errors import UserError
from bench.gradients.plan import plan_gradients
from bench.profiles.profile import Profile
from estimators.base import Estimator, Knob
from estimators.registry import all_estimators
from estimators.spaces import Bits


def turned(profile: Profile, task: str, estimator: str) -> dict[str, list[dict[str, object]]]:
    """The settings that an estimator is measured at, by the one that was turned."""
    models = plan([task], ["dense"], 1, profile)
    found: dict[str, list[dict[str, object]]] = {}
    for item in plan_gradients(plan([task], [estimator], 1, profile), models, profile)[1:]:
        assert item.cell.gradients is not None
        (knob,) = item.cell.gradients["knob"]
        found.setdefault(knob, []).append(item.cell.estimator_settings)
    return found


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, estimator in all_estimators().items()
        if "samples" in estimator.Settings.model_fields
        and estimator.objective == "elbo"
        and not estimator.own_model
    ],
)
def test_samplers_are_measured_at_equal_calls(profile: Profile, name: str) -> None:
    estimator = all_estimators()[name]
    task = "bitvector" if estimator.spaces == (Bits,) else "signal_game"
    (item,) = plan([task], [name], 1, profile)
    latent = cell_latent(item.cell, None)
    every = [item.cell.estimator_settings, *turned(profile, task, name).get("samples", [])]
    calls = {
        estimator.make(latent.space, features=latent.features, **settings).calls_per_row
        for settings in every
    }
    assert calls >= {4, 16} & set(_reachable(estimator, latent))


def _reachable(estimator: type[Estimator], latent: Latent) -> Iterator[int]:
    """The decoder calls that any number of samples makes."""
    for samples in range(1, 17):
        with suppress(ValidationError):
            made = estimator.make(latent.space, features=latent.features, samples=samples)
            yield made.calls_per_row


def test_a_bound_on_several_samples_is_not_measured_against_the_elbo(profile: Profile) -> None:
    models = plan(["ssvae"], ["dense"], 1, profile)
    (item,) = plan_gradients(plan(["ssvae"], ["vimco"], 1, profile), models, profile)
    assert item.skip == "vimco descends a bound on several samples, and this the ELBO"


def test_a_z_between_assignments_is_not_measured_against_a_sum(profile: Profile) -> None:
    models = plan(["bitvector"], ["dense"], 1, profile)
    (item,) = plan_gradients(plan(["bitvector"], ["hard-kuma"], 1, profile), models, profile)
    assert item.skip == "z of hard-kuma lies between assignments, and this sums over these alone"


def test_every_setting_is_turned_by_itself(profile: Profile) -> None:
    found = turned(profile, "ssvae", "sum-and-sample")
    assert [s["k"] for s in found["k"]] == [2, 4]
    assert [s["decay"] for s in found["decay"]] == [0.5, 0.99]
    assert {s["k"] for s in found["samples"] + found["decay"]} == {1}
    assert set(turned(profile, "bitvector", "gumbel")) == {"samples", "initial"}
    assert set(turned(profile, "bitvector", "nvil")) == {"samples", "decay"}
    assert [s["k"] for s in turned(profile, "bitvector", "topk-sparsemax")["k"]] == [2]  # not 50
    warm = profile.with_values("ssvae", "gumbel", {"settings.minimum": 0.7})
    assert [s["initial"] for s in turned(warm, "ssvae", "gumbel")["initial"]] == [2]  # not 0.5


@pytest.mark.parametrize(
    ("knob", "said"),
    [
        (
            Knob("decays", (0.5,)),
            "no setting for a knob of sfe-ma 'decays': did you mean 'decay'? ",
        ),
        (Knob("decay", (0.5, 2)), "knob of sfe-ma: decay = 2.0: input should be less than"),
    ],
)
def test_a_wrong_knob_is_told_in_a_line(
    profile: Profile, knob: Knob, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_estimators()["sfe-ma"], "knobs", (knob,))
    with pytest.raises(UserError) as error:
        turned(profile, "bitvector", "sfe-ma")
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_all_are_measured_on_the_batches_of_the_model(profile: Profile) -> None:
    models = plan(["bitvector"], ["dense"], 1, profile)
    (item,) = plan(["bitvector"], ["sfe"], 1, profile)
    other = replace(item, cell=replace(item.cell, training=item.cell.training | {"batch_size": 8}))
    (first, *_) = plan_gradients([other], models, profile)
    assert first.cell.training["batch_size"] == models[0].cell.training["batch_size"] != 8


@pytest.mark.parametrize(("bits", "refused"), [(16, False), (17, True)])
def test_too_many_bits_are_skipped_with_the_reason(
    profile: Profile, bits: int, refused: bool
) -> None:
    small = profile.tasks["bitvector"]
    tasks = {"bitvector": small.model_copy(update={"settings": small.settings | {"bits": bits}})}
    larger = profile.model_copy(update={"tasks": tasks})
    grid = plan(["bitvector"], ["sfe"], 1, larger)
    (first, *_) = plan_gradients(grid, grid, larger)
    wanted = "the exact gradient sums over every z: at most 65536, not Bits(17)"
    assert first.skip == (wanted if refused else None)
