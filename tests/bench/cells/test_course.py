"""The course of a cell: warm start, selection on validation, early stop, going on after a stop."""

import importlib.util
import io
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from entmax import sparsemax_loss
from torch.nn import functional as F

from bench.cells import course, tensors
from bench.cells.cell import Cell, Planned
from bench.cells.course import train_cell
from bench.cells.evaluation import evaluate
from bench.cells.training import Row, Trainer
from bench.cells.warm_start import warm_start, warm_start_of
from bench.grid import grid, runner
from bench.grid.claims import claimed
from bench.grid.grid import run_cells
from bench.profiles.profile import Profile
from bench.results.store import last_row
from tasks.base import SPLITS
from tasks.data.base import DataError
from tests.bench.cells.test_cell import PAIRS, without_times
from tests.bench.conftest import cell_of


class StoppedError(Exception):
    """What ends a training from outside."""


def trained(profile: Profile, **training: object) -> Profile:
    """The profile with other settings of training."""
    return profile.model_copy(update={"training": profile.training | training})


def interrupted(cell: Cell, checkpoint: Path) -> list[Row]:
    """The rows of a cell that is stopped after every few steps, within an epoch and before an
    evaluation, and goes on from its checkpoint."""

    def stop(share: float) -> None:
        raise StoppedError

    stops = 0
    while True:
        try:
            rows = list(train_cell(cell, report=stop, checkpoint=checkpoint))
        except StoppedError:
            stops += 1
        else:
            assert stops >= 2
            return rows


@pytest.mark.parametrize(
    ("task", "estimator"), {estimator: (task, estimator) for task, estimator in PAIRS}.values()
)
def test_an_interrupted_cell_ends_as_if_it_never_was(
    profile: Profile, tmp_path: Path, task: str, estimator: str
) -> None:
    """Averages, temperatures, networks, Adam, counts, diagnostics, the best so far: all of it."""
    cell = cell_of(trained(profile, epochs=2), task, estimator)
    undisturbed = list(train_cell(cell))
    rows = interrupted(cell, tmp_path / "checkpoint.pt")
    assert without_times(rows) == without_times(undisturbed)
    assert rows[-1]["train_seconds"] > rows[1]["train_seconds"] > 0


def test_a_cell_that_goes_on_with_other_kernels_says_so(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, file = cell_of(profile, "bitvector", "sfe"), tmp_path / "checkpoint.pt"
    found = []
    for kernels in ("AVX2", "AVX2", "AVX512", "AVX512"):
        monkeypatch.setattr(course, "kernels", lambda kernels=kernels: kernels)
        one = course.Course(Trainer(cell), file)
        found.append(one.look()["kernels"])
        one.save()
    assert found == ["AVX2", "AVX2", *2 * ["AVX2, then AVX512"]]
    assert {row["kernels"] for row in one.conclude()} == {found[-1]}


def test_a_damaged_checkpoint_or_warm_start_is_made_anew(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "SAVE_SECONDS", 0)
    cell = warm(profile, "gumbel")
    undisturbed = list(train_cell(cell, models=tmp_path, checkpoint=tmp_path / "checkpoint.pt"))
    files = [tmp_path / "checkpoint.pt", *tmp_path.glob("*/warm-start.pt")]
    assert len(files) == 2
    for damage in (b"", b"PK\x03\x04 and no more", files[0].read_bytes()[:-100]):
        for file in files:
            file.write_bytes(damage)
        rows = list(train_cell(cell, models=tmp_path, checkpoint=files[0]))
        assert without_times(rows) == without_times(undisturbed)


class Full(io.FileIO):
    """A file on a disk that a few bytes fill."""

    def write(self, content: Any) -> int:
        if self.tell() + len(content) > 50:
            raise OSError(28, "No space left on device")
        return super().write(content)


def test_a_training_goes_on_where_it_can_not_be_saved(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "written_whole", lambda path: Full(path, "w"))
    course.Course(Trainer(cell_of(profile, "bitvector", "sfe")), tmp_path / "checkpoint.pt").save()


CHANGED = """
from estimators.sampled.score_function import ScoreFunction

class Changed(ScoreFunction):
    name = "changed"  # {}
"""


def test_a_checkpoint_of_other_code_is_made_anew(profile: Profile, tmp_path: Path) -> None:
    """As of an estimator that failed, and was mended: half of the numbers would be of each."""

    def course_of(text: str) -> course.Course:
        source = tmp_path / "changed.py"
        source.write_text(CHANGED.format(text))
        spec = importlib.util.spec_from_file_location("changed", source)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["changed"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        trainer = Trainer(cell_of(profile, "bitvector", "sfe"))
        trainer.estimator.__class__ = module.Changed
        return course.Course(trainer, tmp_path / "checkpoint.pt")

    before = course_of("as it was")
    before.trainer.train(2)
    before.save()
    assert course_of("as it was").trainer.step == 2
    assert course_of("mended").trainer.step == 0
    del sys.modules["changed"]


def test_other_data_than_were_planned_with_are_refused(profile: Profile) -> None:
    """As of another machine, where a folder of the same name holds them."""
    cell = cell_of(profile, "ssvae", "sfe")
    with pytest.raises(DataError, match="digits has other content here, or now, than the run"):
        Trainer(replace(cell, dataset_digest="another"))


def test_a_cell_is_saved_now_and_then(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(course.time, "monotonic", lambda: now)
    trainer = Trainer(cell_of(profile, "bitvector", "sfe"))
    running = course.Course(trainer, tmp_path / "checkpoint.pt")
    for now in (course.SAVE_SECONDS - 1, course.SAVE_SECONDS):
        running.save_now_and_then()
        assert running.file is not None
        assert running.file.exists() == (now == course.SAVE_SECONDS)


def test_the_runner_goes_on_where_a_cell_failed_and_cleans_up_after_one_that_did_not(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "SAVE_SECONDS", 0)
    cell = cell_of(profile, "signal_game", "gumbel")
    execution = runner.Execution(tmp_path, "tiny", None, "cpu", jobs=1, command="test")
    real = Trainer.evaluate

    def broken(self: Trainer, split: str, last: bool = False) -> Row:
        if last:
            raise MemoryError("no room")
        return real(self, split, last)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "evaluate", broken)
    assert runner.run_cell(cell, execution, beside=0).status == "failed"
    assert runner.checkpoint_file(tmp_path, cell).exists()
    monkeypatch.setattr(Trainer, "evaluate", real)
    saved = runner.checkpoint_file(tmp_path, cell).read_bytes()
    seen: list[int] = []
    before = Trainer.train
    monkeypatch.setattr(Trainer, "train", lambda self, n: (seen.append(n), before(self, n))[1])
    assert runner.run_cell(cell, execution, beside=0).status == "ok"
    assert seen == [course.WARM_UP_STEPS]  # all other steps were done before
    assert last_row(tmp_path, cell)["cells_beside"] is None  # and so was most of train_seconds
    assert not runner.checkpoint_file(tmp_path, cell).exists()
    runner.checkpoint_file(tmp_path, cell).write_bytes(saved)
    assert runner.run_cell(cell, replace(execution, force=True), beside=0).status == "ok"
    assert sum(seen) == 2 * course.WARM_UP_STEPS + 10  # with --force they are done again
    assert last_row(tmp_path, cell)["cells_beside"] == 0


def scripted(monkeypatch: pytest.MonkeyPatch, metric: str, values: list[float]) -> None:
    """Evaluations on validation find these values in turn."""
    real, left = Trainer.evaluate, iter(values)

    def evaluate(self: Trainer, split: str, last: bool = False) -> Row:
        row = real(self, split, last)  # type: ignore[arg-type]
        return row | {metric: next(left)} if split == "validation" else row

    monkeypatch.setattr(Trainer, "evaluate", evaluate)


@pytest.mark.parametrize(
    ("metric", "values"),
    [("accuracy", [0.9, 0.2, 0.7, 0.7, 0.6]), ("loss", [0.1, 0.9, 0.2, 0.2, 0.3])],
)
def test_the_best_on_validation_is_tested_beside_the_last(
    profile: Profile, monkeypatch: pytest.MonkeyPatch, metric: str, values: list[float]
) -> None:
    """The first of equals, and not the model that no step has changed."""
    *_, two, _ = train_cell(cell_of(trained(profile, epochs=2), "ssvae", "sfe-ma"))
    *_, four, _ = train_cell(cell_of(trained(profile, epochs=4), "ssvae", "sfe-ma"))
    cell = cell_of(trained(profile, epochs=4), "ssvae", "sfe-ma")
    monkeypatch.setattr(Trainer(cell).task.__class__, "metrics", (metric,))
    scripted(monkeypatch, metric, values)
    finished: list[torch.Tensor] = []
    *_, last, best = train_cell(cell, finish=lambda t: finished.append(t.parameters.clone()))
    assert (last["selection"], best["selection"]) == ("last", "best")
    assert (last["step"], best["step"]) == (four["step"], two["step"])
    assert (last["loss"], best["loss"]) == (four["loss"], two["loss"])
    assert best["decoder_calls_total"] == last["decoder_calls_total"]  # of the whole training
    trainer = Trainer(cell)
    trainer.train(two["step"])
    assert torch.equal(finished[0], trainer.parameters)


@pytest.mark.parametrize("stopped", [False, True])
def test_patience_ends_a_training(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    scripted(monkeypatch, "accuracy", [0.9, 0.5, 0.4, 0.6, 0.6, 0.5, 0.9])
    cell = cell_of(trained(profile, epochs=6, patience=2), "ssvae", "sfe")
    rows = interrupted(cell, tmp_path / "checkpoint.pt") if stopped else list(train_cell(cell))
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4, 5, 5, 3]


def test_a_row_is_of_its_split(profile: Profile) -> None:
    """What is selected on validation has not seen the test."""
    trainer = Trainer(cell_of(profile, "bitvector", "sfe"))
    found = [trainer.evaluate(split)["loss"] for split in SPLITS]
    parts = trainer.task, trainer.estimator, trainer.cost, trainer.evaluation
    assert found == [evaluate(*parts, split, trainer.streams)["loss"] for split in SPLITS]
    assert len(set(found)) == 3


def test_decoder_calls_are_those_since_the_last_row(profile: Profile) -> None:
    """Of a support that changes; those of labels are counted apart, for 64 images a step."""
    fast = trained(profile, epochs=2, learning_rate=0.03)
    _, one, two, last, _ = train_cell(cell_of(fast, "ssvae", "sparsemax"))
    calls, examples = (two[name] - one[name] for name in ("decoder_calls_total", "examples"))
    assert two["decoder_calls"] == calls / examples
    assert last["decoder_calls"] == last["decoder_calls_total"] / last["examples"]
    assert two["decoder_calls"] != last["decoder_calls"]
    assert [row["supervised_calls_total"] / 64 for row in (one, two)] == [one["step"], two["step"]]


def test_slopes_and_oracle_calls_are_counted_as_decoder_calls_are(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slope for each row of the first epoch and three of the second, and half as many calls of
    the oracle."""
    real = Trainer._step

    def step(self: Trainer) -> torch.Tensor:
        before = self.rows
        loss = real(self)
        each = 2 if self.step <= self.task.steps_per_epoch else 6
        self.cost.calls["slopes"] += each * (self.rows - before)
        self.cost.calls["oracle"] += each * (self.rows - before) // 2
        return loss

    monkeypatch.setattr(Trainer, "_step", step)
    start, one, two, last, best = train_cell(cell_of(trained(profile, epochs=2), "ssvae", "sfe"))
    rows = [one["examples"], two["examples"] - one["examples"]]
    assert [row["slopes"] for row in (start, one, two)] == [None, 2, 6]
    assert [row["oracle_calls"] for row in (start, one, two)] == [None, 1, 3]
    assert [row["slopes_total"] for row in (start, one, two)] == [
        0, 2 * rows[0], 2 * rows[0] + 6 * rows[1],
    ]  # fmt: skip
    for row in (last, best):
        assert row["slopes"] == 2 * row["oracle_calls"] == two["slopes_total"] / two["examples"]
        assert row["oracle_calls_total"] == two["slopes_total"] / 2
    none = [*train_cell(cell_of(profile, "ssvae", "none"))]
    assert {row["slopes"] for row in none} == {row["decoder_calls"] for row in none} == {None}


def warm(profile: Profile, estimator: str = "sfe", seed: int = 0, **training: object) -> Cell:
    """A cell that starts from two passes over the labels."""
    settings = {"warm_start_epochs": 2, **training}
    return cell_of(trained(profile, **settings), "ssvae", estimator, seed)


def start_of(cell: Cell) -> Cell:
    found = warm_start_of(cell)
    assert found is not None
    return found


def test_a_warm_start_is_shared_by_the_estimators_of_a_seed_and_a_mapping(profile: Profile) -> None:
    start = start_of(warm(profile))
    assert start == start_of(warm(profile, "dense"))
    assert start != start_of(warm(profile, seed=1))
    assert start == start_of(warm(profile, "none", learning_rate=0.1, epochs=7, weight_decay=1.0))
    assert start != start_of(warm(profile, "sparsemax"))
    assert start != start_of(warm(profile, warm_start_epochs=3))
    assert start != start_of(warm(profile, warm_start_learning_rate=0.1))
    assert start != start_of(warm(profile, batch_size=32))
    assert warm_start_of(cell_of(profile, "ssvae", "sfe")) is None


@pytest.mark.parametrize("estimator", ["gumbel", "sparsemax"])
def test_a_warm_start_is_plain_training_on_labels(profile: Profile, estimator: str) -> None:
    """Against a loop without the harness: −ELBO at the label, and the mapping's loss on it."""
    cell = warm(profile, estimator, warm_start_learning_rate=3e-3)
    found = warm_start(cell, None)
    start = start_of(cell)
    task = Trainer(start).task
    plain = Trainer(start)
    adam = torch.optim.Adam(plain.task.parameters(), lr=3e-3)
    assert start.seed == -1
    assert task.labelled_steps_per_epoch == 1  # a batch of 64, of 100 images
    for step in range(2):
        encoding = plain.task.encode(plain.task.labelled_batch(step, plain.streams))
        assert encoding.supervised is not None
        assert len(encoding.scores) == 0
        scores, target, row = encoding.supervised
        cost = plain.task.cost(encoding.context, target, row).mean()
        if estimator == "sparsemax":
            label = sparsemax_loss(scores[:, 0], target[:, 0]).mean()
        else:
            label = F.cross_entropy(scores[:, 0], target[:, 0])
        adam.zero_grad()
        (cost + label).backward()
        adam.step()
    torch.testing.assert_close(found, plain.parameters)


def test_two_runs_train_a_warm_start_once_and_none_waits_for_a_cell_that_has_it(
    profile: Profile, tmp_path: Path
) -> None:
    cell = warm(profile)
    execution = runner.Execution(tmp_path, "tiny", None, "cpu", jobs=1, command="test")
    file = tmp_path / runner.MODELS / start_of(cell).key / "warm-start.pt"
    for other, waits in ((cell, False), (start_of(cell), True)):
        thread = threading.Thread(target=grid._train_models, args=([cell], execution))
        with claimed(runner.progress_file(tmp_path, other)):
            thread.start()
            thread.join(1 if waits else 30)
            assert file.exists() != waits
        thread.join(30)
        assert file.exists()
        file.unlink()


def test_cells_begin_at_their_warm_start_which_is_trained_once(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_starts: list[tuple[str, int]] = []
    real = Trainer.__init__

    def counted(self: Trainer, cell: Cell, *arguments: object) -> None:
        if cell.seed < 0:
            trained_starts.append((cell.estimator, cell.seed))
        real(self, cell, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "__init__", counted)
    cells = [warm(profile, e, s) for e in ("sfe", "dense", "sparsemax") for s in (0, 1)]
    execution = runner.Execution(tmp_path, "tiny", None, "cpu", jobs=1, command="test")
    outcomes = run_cells([Planned(cell, None) for cell in cells], execution)
    assert {outcome.status for outcome in outcomes} == {"ok"}
    assert sorted(trained_starts) == [
        (name, seed) for name in ("none", "sparsemax") for seed in (-2, -1)
    ]
    for cell in (warm(profile, "dense", epochs=0), warm(profile, "sparsemax", seed=1, epochs=0)):
        finished: list[torch.Tensor] = []
        models = tmp_path / runner.MODELS
        list(train_cell(cell, models=models, finish=lambda t: finished.append(t.parameters)))  # noqa: B023
        expected = warm_start(cell, None)
        assert expected is not None
        assert torch.equal(finished[0], expected)
