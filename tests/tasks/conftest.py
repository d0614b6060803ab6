"""Tasks of each kind, small, in float64, on the bundled digits."""

import pytest
import torch

from tasks.base import Task
from tasks.datasets import load_dataset
from tasks.registry import all_tasks

SMALL = {
    "ssvae": {"hidden": 16, "classifier_hidden": 16},
    "signal_game": {"vocabulary": 6, "candidates": 4, "embedding": 8, "hidden": 8, "episodes": 50},
    "bitvector": {"bits": 4, "hidden": 16},
}


def make_task(name: str, batch_size: int = 8, **settings: object) -> Task:
    """A small task by name."""
    task_class = all_tasks()[name]
    torch.manual_seed(0)
    chosen = task_class.Settings(**(SMALL.get(name, {}) | settings))
    return task_class(load_dataset(chosen.dataset, None), chosen, batch_size).double()


@pytest.fixture(params=sorted(all_tasks()))
def task(request: pytest.FixtureRequest) -> Task:
    return make_task(request.param)
