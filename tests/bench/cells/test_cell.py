"""Keys, profiles and pairing."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cells.cell import plan
from bench.cells.course import train_cell
from bench.cells.step import training_loss
from bench.cells.training import DivergedError, Trainer
from bench.cli.options import Grid
from bench.errors import UserError
from bench.profiles.profile import Profile
from estimators.base import Estimate
from estimators.registry import all_estimators
from estimators.sampler import Sampler
from estimators.spaces import Categoricals
from estimators.summed import sparse as sparse_bits
from tasks.data.base import DataError
from tasks.registry import all_tasks
from tests.bench.conftest import cell_of
from tests.pairs import ONE_EACH, PAIRS
from tests.tasks.test_tasks import flatten

TIMES = ("train_seconds",)


def without_times(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{name: v for name, v in row.items() if name not in TIMES} for row in rows]


@pytest.mark.parametrize(("task", "estimator"), ONE_EACH)
def test_a_cell_trains_alike_twice_and_ends_finite(
    profile: Profile, task: str, estimator: str
) -> None:
    cell = cell_of(profile, task, estimator)
    first, second = list(train_cell(cell)), list(train_cell(cell))
    assert without_times(first) == without_times(second)
    assert [row["split"] for row in first] == ["validation", "validation", "test", "test"]
    assert first[-1]["train_seconds"] > 0
    if estimator != "none":
        assert 0 < first[-1]["decoder_calls"] <= Trainer(cell).estimator.calls_per_row
        assert first[-1]["gradient_norm"] > 0
    assert all(first[-1][metric] is not None for metric in all_tasks()[task].metrics)


@pytest.mark.parametrize("task", sorted(all_tasks()))
def test_estimators_are_paired_at_a_seed(profile: Profile, task: str) -> None:
    """Same initial parameters and same batches, whatever the estimator."""
    names = [name for pair, name in PAIRS if pair == task]
    trainers = [Trainer(cell_of(profile, task, name)) for name in names]
    first = trainers[0].task.state_dict()
    for trainer in trainers[1:]:
        for name, value in trainer.task.state_dict().items():
            assert torch.equal(value, first[name])
    other = Trainer(cell_of(profile, task, names[0], seed=1)).task.state_dict()
    started_at = task != "toy"  # which starts from numbers that are given
    assert started_at == any(not torch.equal(v, first[name]) for name, v in other.items())
    batches = [flatten(t.task.training_batch(3, t.streams)) for t in trainers]
    for batch in batches[1:]:
        assert all(torch.equal(one, two) for one, two in zip(batch, batches[0], strict=True))


def test_the_norm_that_is_noted_is_of_the_last_gradient(profile: Profile) -> None:
    trainer = Trainer(cell_of(profile, "ssvae", "sfe"))
    trainer.train(3)
    gradients = [part.grad for part in trainer.task.parameters() if part.grad is not None]
    squared = sum(float(gradient.square().sum()) for gradient in gradients)
    assert trainer.gradient_norm == pytest.approx(squared**0.5)


def test_training_lowers_the_loss(profile: Profile) -> None:
    longer = profile.model_copy(update={"training": profile.training | {"epochs": 5}})
    for task in all_tasks():
        rows = list(train_cell(cell_of(longer, task, "dense")))
        assert rows[-3]["loss"] < rows[0]["loss"]


def test_a_run_leaves_the_global_generator_alone(profile: Profile) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(train_cell(cell_of(profile, "ssvae", "nvil")))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("estimator", ["dense", "sfe", "sparsemax", "gumbel"])
def test_divergence_names_the_step_and_keeps_the_rows(profile: Profile, estimator: str) -> None:
    training = profile.training | {"learning_rate": 1e30, "epochs": 5}
    wild = profile.model_copy(update={"training": training})
    rows = train_cell(cell_of(wild, "ssvae", estimator))
    assert next(rows)["step"] == 0
    with pytest.raises(DivergedError, match=r"(the loss is|the scores are) .* at step [1-9]"):
        next(rows)


def test_a_gradient_that_is_not_finite_is_found_after_its_step(profile: Profile) -> None:
    trainer = Trainer(cell_of(profile, "bitvector", "dense"))
    next(trainer.task.parameters()).register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(DivergedError, match=r"the gradient's norm (inf|nan) at step 1"):
        trainer.train(1)


def test_warm_up_takes_steps_with_the_latent_variable(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there is a warm start: its steps (the first here) are no warm-up."""
    training = profile.training | {"warm_start_epochs": 1}
    warm = profile.model_copy(update={"training": training})
    seen: list[tuple[int, int]] = []
    real = Trainer.train

    def train(self: Trainer, steps: int) -> None:
        real(self, steps)
        seen.append((self.step, self.cost.calls["latent"]))

    monkeypatch.setattr(Trainer, "train", train)
    next(train_cell(cell_of(warm, "ssvae", "sfe")))
    assert seen == [(1, 0), (3, 3 * 64)]


def test_diagnostics_are_stored_as_means_since_the_last_row(profile: Profile) -> None:
    rows = list(train_cell(cell_of(profile, "bitvector", "sparsemap")))
    assert (rows[0]["diagnostics"], rows[2]["diagnostics"]) == (None, None)
    means = json.loads(rows[1]["diagnostics"])
    assert means["unsolved"] == 0
    assert rows[1]["loss"] < means["objective"] < rows[0]["loss"]  # it fell while it was averaged
    assert rows[-1]["unsolved"] == 0
    (_, row, _, _) = train_cell(cell_of(profile, "ssvae", "gumbel"))
    assert json.loads(row["diagnostics"])["temperature"] == 1


def test_what_is_noted_of_steps_holds_no_graph(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an estimator that forgets to detach: all steps until the next row would stay in memory."""
    trainer = Trainer(cell_of(profile, "bitvector", "sfe"))
    real = trainer.estimator.combine

    def forgetful(*given: Any) -> Estimate:
        right = real(*given)
        assert right.surrogate is not None
        return replace(right, objective=right.surrogate, diagnostics={"a": right.surrogate.sum()})

    monkeypatch.setattr(trainer.estimator, "combine", forgetful)
    trainer.train(1)
    noted = trainer.state()["diagnostics"]
    assert [value.requires_grad for values in noted.values() for value in values] == [False] * 2


def test_a_mapping_that_stops_short_is_in_the_row(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sparse_bits.sparsemap_bits

    def short(*arguments: object) -> object:
        return real(*arguments, max_iterations=1)  # type: ignore[arg-type]

    monkeypatch.setattr(sparse_bits, "sparsemap_bits", short)
    rows = list(train_cell(cell_of(profile, "bitvector", "sparsemap")))
    assert rows[-1]["unsolved"] > 0
    assert json.loads(rows[1]["diagnostics"])["unsolved"] > 0


def test_parameters_that_are_lost_are_no_result(profile: Profile) -> None:
    """The last step can break the model after its loss was seen: evaluation finds it."""
    trainer = Trainer(cell_of(profile, "bitvector", "dense"))
    with torch.no_grad():
        trainer.task.get_parameter("to_levels.bias").fill_(torch.nan)
    with pytest.raises(DivergedError, match="the test loss is nan at step 0"):
        trainer.evaluate("test")
    with torch.no_grad():
        trainer.task.get_parameter("encoder.0.bias").fill_(torch.nan)
    with pytest.raises(DivergedError, match="the scores are not finite on test at step 0"):
        trainer.evaluate("test")


@pytest.mark.parametrize("task", ["ssvae", "bitvector"])
def test_a_batch_larger_than_the_data_is_refused(profile: Profile, task: str) -> None:
    wide = profile.model_copy(update={"training": profile.training | {"batch_size": 2000}})
    with pytest.raises(DataError, match="lower the setting batch_size"):
        cell_of(wide, task, "sfe")


def test_a_warm_start_without_labels_is_refused(profile: Profile) -> None:
    warm = profile.model_copy(update={"training": profile.training | {"warm_start_epochs": 2}})
    with pytest.raises(UserError, match="it has no labels to start on"):
        cell_of(warm, "bitvector", "dense")


def test_the_key_is_of_what_determines_the_numbers(profile: Profile, tmp_path: Path) -> None:
    cell = cell_of(profile, "ssvae", "sfe")
    assert cell.key == cell_of(profile, "ssvae", "sfe").key
    everything = plan([*all_tasks()], [*all_estimators()], 2, profile)
    assert len({item.cell.key for item in everything}) == len(everything)
    assert cell in [item.cell for item in everything]
    assert cell_of(profile, "ssvae", "sfe", seed=1).key != cell.key
    longer = profile.model_copy(update={"training": profile.training | {"epochs": 2}})
    assert cell_of(longer, "ssvae", "sfe").key != cell.key
    renamed = profile.model_copy(update={"description": "another"})
    assert cell_of(renamed, "ssvae", "sfe").key == cell.key
    assert replace(cell, threads=2).key != cell.key
    assert replace(cell, device="cuda").key != cell.key


def test_a_step_moves_everything_that_learns(profile: Profile) -> None:
    """The model along the gradient of its loss, with decay in that gradient; the baseline's network
    without decay; and the moving averages."""
    cell = cell_of(profile, "signal_game", "nvil")
    training = cell.training | {"entropy_weight": 0.7, "weight_decay": 0.1, "learning_rate": 3e-3}
    trainer, twin = (Trainer(replace(cell, training=training)) for _ in range(2))
    before = {name: value.clone() for name, value in trainer.estimator.state_dict().items()}
    trainer.train(1)
    moved = trainer.estimator.state_dict()
    assert not [name for name, value in moved.items() if torch.equal(value, before[name])]
    result = training_loss(
        twin.task, twin.estimator, twin.cost, twin.task.training_batch(0, twin.streams),
        Sampler(twin.streams.generator("estimator", 0)), entropy_weight=0.7,
    )  # fmt: skip
    result.loss.backward()
    settings = twin.settings
    torch.optim.Adam(twin.task.parameters(), settings.learning_rate, weight_decay=0.1).step()
    torch.optim.Adam(twin.estimator.parameters(), settings.baseline_learning_rate).step()
    for module in ("task", "estimator"):
        both = (getattr(one, module).parameters() for one in (trainer, twin))
        for one, two in zip(*both, strict=True):
            torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.02),
        ("weight_decay", 0.1),
        ("entropy_weight", 3.0),
        ("baseline_learning_rate", 0.5),
        ("batch_size", 32),
    ],
)
def test_each_training_setting_changes_what_is_learned(
    profile: Profile, name: str, value: float
) -> None:
    cell = cell_of(profile, "ssvae", "nvil")
    trainers = [Trainer(replace(cell, training=cell.training | c)) for c in ({}, {name: value})]
    for trainer in trainers:
        trainer.train(3)
    states = [{**t.task.state_dict(), **t.estimator.state_dict()} for t in trainers]
    assert any(not torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_training_seconds_are_those_of_training(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that a step moves on by one, and an evaluation by a thousand."""
    now = 0.0

    def ticking(seconds: float, method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal now
            now += seconds
            return method(*arguments, **named)

        return call

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monkeypatch.setattr(Trainer, "_step", ticking(1, Trainer._step))
    monkeypatch.setattr(Trainer, "evaluate", ticking(1000, Trainer.evaluate))
    rows = list(train_cell(cell_of(profile, "bitvector", "sfe")))
    assert [row["train_seconds"] for row in rows] == [row["step"] for row in rows]


@pytest.mark.parametrize(
    ("text", "tasks"),
    [("[tasks.bitvector.settings]\nbits = 3", ["bitvector"]), ("", [*all_tasks()])],
)
def test_all_tasks_are_those_that_the_profile_has_settings_for(
    tmp_path: Path, text: str, tasks: list[str]
) -> None:
    path = tmp_path / "some.toml"
    path.write_text(f'description = "some"\n{text}')
    grid = Grid(profile=str(path), estimators="none", seeds=1)
    assert [item.cell.task for item in grid.plan(grid.load_profile())] == tasks


def test_settings_reach_the_cell(profile: Profile) -> None:
    sfe, dense = (cell_of(profile, "signal_game", name) for name in ("sfe", "dense"))
    assert sfe.training["entropy_weight"] == 0.05
    assert dense.training["entropy_weight"] is None
    assert sfe.task_settings == dense.task_settings


def test_pairs_that_make_no_sense_are_skipped_with_a_reason(profile: Profile) -> None:
    reasons = {
        (item.cell.task, item.cell.estimator): item.skip
        for item in plan([*all_tasks()], [*all_estimators()], 1, profile)
    }
    expected = {}
    for task, (name, estimator) in product(all_tasks().values(), all_estimators().items()):
        if not issubclass(task.space_type, estimator.spaces):
            taken = " or ".join(space.name for space in estimator.spaces)
            expected[task.name, name] = f"{name} takes {taken} only"
        elif estimator.takes_slopes and not task.accepts_relaxed:
            expected[task.name, name] = (
                f"{name} takes slopes, and the decoder of {task.name} no points to take them at"
            )
        elif estimator.own_model and task.has_labels:
            expected[task.name, name] = (
                f"the label of ssvae is a category, and z of {name} lies between categories"
            )
    assert {pair: reason for pair, reason in reasons.items() if reason is not None} == expected
    wide = profile.model_copy(deep=True)
    wide.tasks["bitvector"].settings["bits"] = 9
    (item,) = plan(["bitvector"], ["dense"], 1, wide)
    assert item.skip == "dense needs every assignment of Bits(9); at most 256 are run"
    wide.tasks["bitvector"].settings["bits"] = 13
    (item,) = plan(["bitvector"], ["sum-and-sample"], 1, wide)
    assert item.skip == "sum-and-sample lists every assignment: at most 4096, not Bits(13)'s"
    few = profile.with_values("signal_game", "topk-sparsemax", {"settings.k": 7})
    (item,) = plan(["signal_game"], ["topk-sparsemax"], 1, few)
    assert item.skip == "topk-sparsemax has k = 7, above all 6 assignments"


def test_slopes_are_not_asked_of_a_decoder_that_takes_no_points(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_tasks()["bitvector"], "accepts_relaxed", False)
    reasons = {
        item.cell.estimator: item.skip
        for item in plan(["bitvector"], [*all_estimators()], 1, profile)
    }
    assert {name for name, reason in reasons.items() if reason is not None} == {
        name
        for name, estimator in all_estimators().items()
        if estimator.takes_slopes or estimator.spaces == (Categoricals,)
    }
    assert reasons["gumbel"] == (
        "gumbel takes slopes, and the decoder of bitvector no points to take them at"
    )


def test_a_data_set_is_for_tasks_that_take_one(profile: Profile) -> None:
    items = plan(["toy", "ssvae"], ["sfe"], 1, profile, dataset="digits")
    assert [item.cell.task_settings["dataset"] for item in items] == ["none", "digits"]
    wrong = profile.with_dataset("ssvae", "none")
    with pytest.raises(UserError, match="no dataset 'none'"):
        plan(["ssvae"], ["sfe"], 1, wrong)
    with pytest.raises(UserError, match="task toy: dataset = 'mnist'"):
        plan(["toy"], ["sfe"], 1, profile.with_dataset("toy", "mnist"))
