"""What is stored of a trained model beside its numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bench.cells.cell import Cell, Planned
from bench.cells.course import train_cell
from bench.cells.examples import examples_of, examples_path, likeliest, write_examples
from bench.cells.training import Trainer
from bench.grid import runner
from bench.grid.grid import run_cells
from bench.profiles.profile import Profile
from bench.results.store import cell_path
from estimators.distributions.sparse import SparseDistribution
from estimators.spaces import Bits, Categoricals, Factorised
from estimators.spaces.distribution import FiniteDistribution
from tasks.base import Task
from tests.bench.conftest import cell_of
from tests.bench.unlisted import Unlisted

ROWS = 5
SPACES = (Categoricals(1, 4), Categoricals(2, 3), Bits(4))


def plain_and_sparse(space: Factorised) -> list[FiniteDistribution]:
    generator = torch.Generator().manual_seed(0)
    scores = 2 * torch.randn(ROWS, *space.scores_shape, generator=generator).double()
    listed, probabilities = space.topk_sparsemax(scores, min(space.count, 8))
    return [space.plain(scores), SparseDistribution(space, scores, listed, probabilities)]


@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("most", [1, 3, 20])
def test_the_likeliest_are_those_of_the_sorted_support(
    space: Factorised, sparse: bool, most: int
) -> None:
    q = plain_and_sparse(space)[sparse]
    found = likeliest(q, space, most)
    assert found.z.shape[2:] == space.z_shape
    assert found.support.tolist() == q.support_sizes.tolist()
    _, row, probability = q.support
    for i in range(ROWS):
        expected = sorted(probability[row == i].tolist(), reverse=True)[:most]
        positive = found.probability[i] > 0
        assert found.probability[i][positive].tolist() == pytest.approx(expected)
        of_found = q.log_prob(found.z).exp()[i][positive].tolist()
        assert of_found == pytest.approx(expected)
        assert torch.equal(found.z[i, 0], q.mode()[i])
        assert len(found.z[i][positive].unique(dim=0)) == len(expected)


@pytest.mark.parametrize("space", [Bits(200), Categoricals(60, 5)], ids=repr)
def test_assignments_that_no_one_can_list_are_no_obstacle(space: Factorised) -> None:
    q = space.plain(torch.randn(2, *space.scores_shape).double())
    found = likeliest(q, space, 3)
    assert found.z.shape == (2, 3, *space.z_shape)
    assert torch.equal(found.z[:, 0], q.mode())
    torch.testing.assert_close(found.probability, q.log_prob(found.z).exp())
    assert found.support.tolist() == pytest.approx([float(space.count)] * 2)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_a_support_that_cannot_be_listed_leaves_the_mode(space: Factorised) -> None:
    q = Unlisted(plain_and_sparse(space)[0])
    found = likeliest(q, space, 3)
    assert torch.equal(found.z, q.mode()[:, None])
    torch.testing.assert_close(found.probability, q.log_prob(found.z).exp())
    assert found.support.tolist() == [torch.inf] * ROWS


@pytest.fixture
def execution(tmp_path: Path) -> runner.Execution:
    return runner.Execution(tmp_path, "tiny", None, "cpu", jobs=1, command="test")


@pytest.fixture
def cell(profile: Profile) -> Cell:
    return cell_of(profile, "bitvector", "topk-sparsemax")


def test_a_cell_leaves_its_examples(execution: runner.Execution, cell: Cell) -> None:
    run_cells([Planned(cell, None)], execution)
    trainer = Trainer(cell)
    trainer.train(trainer.steps)
    expected = examples_of(trainer)
    with np.load(examples_path(execution.results, cell)) as file:
        assert {name.split("/")[0] for name in file} == set(expected)
        for name, example in expected.items():
            assert str(file[f"{name}/kind"]) == example.kind
            assert str(file[f"{name}/title"]) == example.title
            for part, array in example.arrays.items():
                np.testing.assert_array_equal(file[f"{name}/{part}"], array)
        shown = trainer.task.encode(trainer.task.part("test").inputs[:4])
        q = trainer.estimator.distribution(shown.scores.detach())
        assert file["bits/support"].tolist() == q.support_sizes.tolist()
        best = torch.from_numpy(file["bits/bits"][:, :1]).float()
        torch.testing.assert_close(
            torch.from_numpy(file["bits/probability"][:, :1]), q.log_prob(best).exp()
        )


@pytest.mark.parametrize("task", ["ssvae", "signal_game", "bitvector"])
def test_examples_change_no_number(profile: Profile, task: str) -> None:
    """Not even of what would follow: training and evaluation go on as they would have."""
    cell = cell_of(profile, task, "sfe-ma")
    looked, plain = Trainer(cell), Trainer(cell)
    looked.train(5)
    plain.train(5)
    examples_of(looked)
    looked.train(5)
    plain.train(5)
    assert torch.equal(looked.flat, plain.flat)
    one, other = (trainer.evaluate("test") for trainer in (looked, plain))
    assert one.pop("train_seconds") != other.pop("train_seconds")
    assert one == other


def test_they_are_taken_at_the_end_off_the_clock(profile: Profile, cell: Cell) -> None:
    seen: list[tuple[int, float]] = []
    rows = list(train_cell(cell, finish=lambda t: seen.append((t.step, t.train_seconds))))
    assert seen == [(rows[-1]["step"], rows[-1]["train_seconds"])]


def test_a_task_without_examples_leaves_no_file(
    execution: runner.Execution, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = examples_path(execution.results, cell)
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setattr(Trainer(cell).task.__class__, "examples", Task.examples)
    runner.run_cell(cell, execution, beside=0)
    assert not path.exists()


def test_what_can_not_be_shown_is_the_cells_failure_after_its_rows(
    execution: runner.Execution, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(runner, "write_examples", broken)
    outcome = runner.run_cell(cell, execution, beside=0)
    assert outcome.status == "failed"
    assert "no space left" in str(outcome.reason)
    rows = pd.read_parquet(cell_path(execution.results, cell))
    assert rows["split"].tolist() == ["validation", "validation", "test", "test"]


def test_a_file_is_written_whole(cell: Cell, tmp_path: Path) -> None:
    examples = examples_of(Trainer(cell))
    write_examples(tmp_path, cell, examples)
    before = examples_path(tmp_path, cell).read_bytes()
    name, example = next(iter(examples.items()))
    broken = {name: example._replace(arrays={"bad": np.array([object()])})}
    with pytest.raises(ValueError, match="allow_pickle"):
        write_examples(tmp_path, cell, broken)
    assert examples_path(tmp_path, cell).read_bytes() == before
    assert len([*examples_path(tmp_path, cell).parent.iterdir()]) == 1
