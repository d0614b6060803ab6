"""Tasks of each kind, small, in float64, on the bundled digits or data of their own."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tasks.base import Task
from tasks.registry import all_tasks

SMALL = {
    "ssvae": {"hidden": 16, "classifier_hidden": 16},
    "signal_game": {"vocabulary": 6, "candidates": 4, "embedding": 8, "hidden": 8, "episodes": 50},
    "bitvector": {"bits": 4, "hidden": 16},
    "categorical_vae": {"variables": 2, "categories": 3, "hidden": (16,)},
    "listops": {
        "longest": 6,
        "embedding": 8,
        "hidden": 6,
        "arcs": 5,
        "states": 7,
        "train": 200,
        "validation": 60,
        "test": 70,
    },
    "clusters": {"clusters": 4, "size": 10, "train": 200, "validation": 60, "test": 70},
    "polynomial": {"variables": 4},
    "sbn": {"bits": 4, "layers": 1, "hidden": 16},
    "toy": {"bits": 3, "initial": 0.5},
    "subset_vae": {"variables": 2, "items": 4, "chosen": 2, "wide": 16, "narrow": 8},
}


def documented() -> type[Task]:
    """The example of docs/CONTRACT.md, which can be pasted into a file as it is."""
    page = (Path(__file__).parents[2] / "docs" / "CONTRACT.md").read_text()
    (example,) = re.findall(r"## A task\n.*?```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, type[Task]] = {}
    exec(example.replace("@register", ""), names)
    return names["Mixture"]


TASKS = {**all_tasks(), "documented": documented()}


def make_task(name: str, batch_size: int = 8, **settings: object) -> Task:
    """A small task by name."""
    task_class = TASKS[name]
    torch.manual_seed(0)
    chosen = task_class.Settings(**(SMALL.get(name, {}) | settings))
    return task_class(task_class.data(chosen, None), chosen, batch_size).double()


@pytest.fixture(params=sorted(TASKS))
def task(request: pytest.FixtureRequest) -> Task:
    return make_task(request.param)


@pytest.fixture
def threads() -> Iterator[None]:
    """Give torch back the threads that it had before the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
