"""The variance of the encoder's gradient over training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cells.cell import Cell
from bench.cells.course import train_cell
from bench.cells.tracing import DECAY
from bench.cells.training import Trainer
from bench.profiles.profile import Profile
from tests.bench.cells.test_course import interrupted
from tests.bench.conftest import cell_of


def still(profile: Profile, task: str, estimator: str, **settings: Any) -> Cell:
    """A cell whose parameters stay where they are."""
    cell = cell_of(profile, task, estimator)
    training = cell.training | {"learning_rate": 1e-30, "batch_size": 2}
    return replace(cell, training=training, task_settings=cell.task_settings | settings)


def test_a_bit_has_the_variance_of_its_estimate_in_closed_form(profile: Profile) -> None:
    """f(b) (b − p) / B, added over a batch of B: ((1 − t)² (1 − p) or −t² p, with p and 1 − p)."""
    t, score, batch = 0.45, 0.7, 2
    trainer = Trainer(still(profile, "toy", "sfe", bits=1, target=t, initial=score))
    p = float(torch.tensor(score).sigmoid())
    on, off = (1 - t) ** 2 * (1 - p), -(t**2) * p
    wanted = p * (1 - p) * (on - off) ** 2 / batch
    trainer.train(1500)
    assert trainer.trace is not None
    # Some 1,300 steps count, so that this is four standard errors or more.
    assert trainer.trace.variance() == pytest.approx(wanted, rel=0.15)


def test_the_trace_is_of_the_moments_of_the_gradients_that_were_taken(profile: Profile) -> None:
    """Of all the encoder's parameters and of no other, in float32 as from float64."""
    cell = cell_of(profile, "sbn", "rloo")
    trainer = Trainer(replace(cell, training=cell.training | {"learning_rate": 1e-3}))
    assert trainer.trace is not None
    assert trainer.trace.variance() is None
    taken: list[torch.Tensor] = []
    for _ in range(20):
        trainer.train(1)
        slopes = [p.grad for p in trainer.task.encoder.parameters() if p.grad is not None]
        taken.append(torch.cat([slope.flatten() for slope in slopes]).double())
    weight = DECAY ** torch.arange(19, -1, -1, dtype=torch.float64)
    weight /= weight.sum()
    gradients = torch.stack(taken)
    wanted = weight @ gradients.square() - (weight @ gradients).square()
    assert trainer.trace.variance() == pytest.approx(float(wanted.mean()), rel=1e-5)


def test_an_exact_gradient_that_stays_has_none(profile: Profile) -> None:
    trainer = Trainer(still(profile, "polynomial", "dense"))
    trainer.train(50)
    assert trainer.trace is not None
    assert trainer.trace.variance() < 1e-12 * float(trainer.flat.grad.square().mean())  # type: ignore


def test_rows_have_it_where_the_task_traces_it_also_after_a_stop(
    profile: Profile, tmp_path: Path
) -> None:
    cell = cell_of(profile, "toy", "rloo")
    cell = replace(cell, training=cell.training | {"epochs": 4})
    rows = list(train_cell(cell))
    found = [row["gradient_variance"] for row in rows]
    assert found[0] is None
    assert min(found[1:]) > 0
    again = interrupted(cell, tmp_path / "checkpoint.pt")
    assert [row["gradient_variance"] for row in again] == found
    (_, row, *_) = train_cell(cell_of(profile, "bitvector", "sfe"))
    assert row["gradient_variance"] is None


def test_the_clock_stands_still_while_it_is_traced(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(cell_of(profile, "toy", "sfe"))
    assert trainer.trace is not None
    now = [0.0]
    real = trainer.trace.add

    def add() -> None:
        now[0] += 1000
        real()

    monkeypatch.setattr("bench.cells.training.time.perf_counter", lambda: now[0])
    monkeypatch.setattr(trainer.trace, "add", add)
    trainer.train(3)
    assert (now[0], trainer.train_seconds) == (3000, 0)
