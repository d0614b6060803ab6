"""Cells that measure gradients: their models, batches and rows."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cells.cell import plan
from bench.cells.training import Trainer
from bench.gradients.cell import FIXED_STEP, checkpoints, fixed_batches, gradient_cell
from bench.gradients.measure import GROUPS, Gradients, joint
from bench.gradients.plan import plan_gradients
from bench.profiles.profile import Profile
from estimators.summed.support_sum import Dense
from tasks.registry import all_tasks
from tasks.streams import Streams


def test_cells_are_one_setting_turned_and_rows_the_groups(profile: Profile, tmp_path: Path) -> None:
    how = {"checkpoints": [0.0, 1.0], "warm_up": 3, "draws": 32, "batches": 2}
    quick = profile.model_copy(update={"gradients": how})
    models = plan(["bitvector"], ["dense"], 1, quick)
    quick = quick.with_values("bitvector", "topk-sparsemax", {"settings.k": 17})
    grid = plan(["bitvector"], ["sfe", "topk-sparsemax"], 1, quick)
    planned = plan_gradients(grid, models, quick)
    samples = [item.cell.estimator_settings.get("samples") for item in planned if not item.skip]
    assert samples == [1, 4, 16]
    assert [item.skip for item in planned if item.skip] == [
        "topk-sparsemax has k = 17, above all 16 assignments"
    ]
    assert len({item.cell.key for item in planned}) == 4
    assert [item.cell.name for item in planned[:2]] == [
        "bitvector/sfe/0", "bitvector/sfe/0 samples=4"
    ]  # fmt: skip
    rows = list(gradient_cell(planned[0].cell, tmp_path))
    assert [(row["share"], row["group"]) for row in rows] == [
        (share, group) for share in (0.0, 1.0) for group in GROUPS
    ]
    assert rows[0]["step"] == 0 < rows[-1]["step"]
    assert rows[0]["objective_distance"] == 0
    assert {row["batches"] for row in rows} == {2}
    again = list(gradient_cell(planned[0].cell, tmp_path))  # the models come from the folder
    assert [repr(row | {"seconds": 0}) for row in rows] == [
        repr(row | {"seconds": 0}) for row in again
    ]
    assert {row["share"] for row in gradient_cell(planned[1].cell, tmp_path)} == {1.0}


@pytest.mark.parametrize(
    ("task", "estimator", "entropy_weight"),
    [("signal_game", "sparsemax", 0.1), ("bitvector", "topk-sparsemax", 1.0)],
)
def test_rows_compare_with_the_exact_gradient_of_the_estimators_own_q(
    task: str, estimator: str, entropy_weight: float, profile: Profile, tmp_path: Path
) -> None:
    """And tell how far that is from the gradient under softmax, or independent bits."""
    how = {"checkpoints": [1.0], "warm_up": 0, "draws": 32, "batches": 2}
    quick = profile.model_copy(update={"gradients": how})
    models = plan([task], ["dense"], 1, quick)
    cell = plan_gradients(plan([task], [estimator], 1, quick), models, quick)[0].cell
    rows = {row["group"]: row for row in gradient_cell(cell, tmp_path)}
    trainer = Trainer(cell)
    (checkpoint,) = checkpoints(cell, tmp_path).values()
    trainer.task.load_state_dict(torch.load(checkpoint.model))
    trainer.task.double()
    trainer.estimator.double()
    drawn = [trainer.task.training_batch(FIXED_STEP + i, trainer.streams) for i in range(2)]
    batches = [Gradients(trainer.task, batch, entropy_weight) for batch in drawn]
    dense = Dense.make(trainer.estimator.space)
    own = joint([batch.exact(trainer.estimator) for batch in batches])
    plain = joint([batch.exact(dense) for batch in batches])
    sizes = {name: sum(p.numel() for p in batches[0].groups[name]) for name in batches[0].groups}
    sizes["scores"] = trainer.task.encode(drawn[0]).scores.numel()
    for group in GROUPS:
        row = rows[group]
        assert row["bias"] <= 1e-12 * row["exact_norm"]
        assert row["exact_norm"] == pytest.approx(float(own[group].norm()))
        assert row["plain_norm"] == pytest.approx(float(plain[group].norm()))
        assert row["objective_distance"] == pytest.approx(float((own[group] - plain[group]).norm()))
        assert row["size"] == sizes[group]
    assert rows["encoder"]["objective_distance"] > 0


def test_batches_have_noise_of_their_own(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"checkpoints": [0.0], "warm_up": 0, "draws": 32, "batches": 2}
    quick = profile.model_copy(update={"gradients": how})
    models = plan(["bitvector"], ["dense"], 1, quick)
    cell = plan_gradients(plan(["bitvector"], ["sfe"], 1, quick), models, quick)[0].cell
    asked: list[tuple[Any, ...]] = []
    generator = Streams.generator

    def noted(streams: Streams, name: str, *which: Any, **where: Any) -> torch.Generator:
        asked.append((name, *which))
        return generator(streams, name, *which, **where)

    monkeypatch.setattr(Streams, "generator", noted)
    rows = list(gradient_cell(cell, tmp_path))
    draws = [one for one in asked if one[0].startswith("draw")]
    assert len(draws) == len({*draws}) == 2 * rows[0]["draws"]


def test_models_are_those_of_the_training(profile: Profile, tmp_path: Path) -> None:
    quick = profile.model_copy(update={"gradients": {"checkpoints": [0.5], "batches": 2}})
    models = plan(["bitvector"], ["dense"], 1, quick)
    (item, *_) = plan_gradients(plan(["bitvector"], ["sfe"], 1, quick), models, quick)
    (checkpoint,) = checkpoints(item.cell, tmp_path).values()
    trainer = Trainer(models[0].cell)
    trainer.train(checkpoint.step)
    assert checkpoint.step == round(trainer.steps / 2)
    state = torch.load(checkpoint.model)
    for name, value in trainer.task.state_dict().items():
        assert torch.equal(value, state[name])
    trainer.task.double()  # and the exact gradients with them are of these, batch by batch
    dense = Dense.make(trainer.estimator.space)
    for number, batch in enumerate(fixed_batches(trainer, 2)):
        kept, again = torch.load(checkpoint.plain(number)), batch.exact(dense)
        assert all(torch.equal(kept[group], again[group]) for group in GROUPS)
    assert not torch.equal(kept["scores"], torch.load(checkpoint.plain(0))["scores"])


@pytest.mark.parametrize("task", sorted(all_tasks()))
def test_every_task_that_can_be_enumerated_is_measured(
    task: str, profile: Profile, tmp_path: Path
) -> None:
    """One without a decoder too: there is nothing of it to measure."""
    how = {"checkpoints": [0.0], "warm_up": 0, "draws": 32, "batches": 1}
    quick = profile.model_copy(update={"gradients": how})
    models = plan([task], ["dense"], 1, quick)
    planned = plan_gradients(plan([task], ["rloo"], 1, quick), models, quick)[0]
    assert planned.skip is None
    rows = {row["group"]: row for row in gradient_cell(planned.cell, tmp_path)}
    assert (rows["decoder"]["size"] > 0) == (task not in ("toy", "polynomial"))
    for group in GROUPS:
        assert (rows[group]["exact_norm"] > 0) == (rows[group]["size"] > 0)
        assert rows[group]["bias_low"] == 0
    if task == "toy":  # 4 bits of log-odds −0.5, with the same slope in each
        on = torch.tensor(-0.5).sigmoid().item()
        slope = (0.55**2 - 0.45**2) * on * (1 - on) / 4
        assert rows["encoder"]["exact_norm"] == pytest.approx(2 * slope)
