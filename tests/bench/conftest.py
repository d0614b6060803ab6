"""A profile that makes every cell tiny, and cells made from it."""

from pathlib import Path

import pytest

from bench.cells import Cell, plan
from bench.profiles import Profile, load_profile
from estimators.registry import all_estimators
from tasks.registry import all_tasks

TINY = """
description = "as small as it gets"
seeds = 2
[training]
batch_size = 64
epochs = 1
baseline_learning_rate = 1e-3
[evaluation]
samples = 4
[tasks.ssvae.settings]
hidden = 8
classifier_hidden = 8
[tasks.signal_game.settings]
vocabulary = 6
candidates = 4
embedding = 8
hidden = 8
episodes = 64
steps_per_epoch = 10
[tasks.signal_game.estimators.sfe.training]
entropy_weight = 0.05
[tasks.bitvector.settings]
bits = 4
hidden = 8
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The path of the tiny profile."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def profile(tiny: Path) -> Profile:
    return load_profile(str(tiny), [*all_tasks()], [*all_estimators()])


def cell_of(profile: Profile, task: str, estimator: str, seed: int = 0) -> Cell:
    """One cell of a profile's grid."""
    return plan([task], [estimator], seed + 1, profile)[seed].cell
