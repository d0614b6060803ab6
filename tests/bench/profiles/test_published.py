"""The `paper` profiles against the table of published settings in docs/PROTOCOL.md."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from bench.profiles.profile import Profile, load_profile
from estimators.registry import all_estimators
from tasks.registry import all_tasks

PAGE = Path(__file__).parents[3] / "docs" / "PROTOCOL.md"

COLUMNS = {
    "ssvae": ("paper", "ssvae"),
    "signal_game": ("paper", "signal_game"),
    "bitvector, D = 32": ("paper", "bitvector"),
    "bitvector, D = 128": ("paper-128", "bitvector"),
}
"""Profile and task of the table's columns."""

Facts = dict[tuple[str, str], str]
"""What the table says of an estimator ("all") and a setting."""


@cache
def facts(column: str) -> Facts:
    """A column of the page's table, without what does not apply there."""
    section = PAGE.read_text().split("## Published settings")[1].split("\n## ")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line] for line in lines]
    place, found = head.index(column), {}
    for row in rows:
        for estimator in row[0].replace("`", "").split(", "):
            if row[place]:
                found[estimator, row[1].strip("`")] = row[place].strip("*")
    return found


def loaded(column: str) -> tuple[Profile, str]:
    name, task = COLUMNS[column]
    return load_profile(name, [*all_tasks()], [*all_estimators()]), task


def resolved(profile: Profile, task: str, estimator: str, setting: str) -> Any:
    """A setting as a cell has it."""
    where, _, name = setting.partition(".")
    own_task = all_tasks()[task].Settings(**profile.task_settings(task))
    own: dict[str, BaseModel] = {
        "": profile,
        "evaluation": profile.evaluation_settings(task),
        "training": profile.training_settings(task, "none" if estimator == "all" else estimator),
        "settings": own_task,
    }
    if estimator != "all":
        given = profile.estimator_settings(task, estimator)
        own["settings"] = all_estimators()[estimator].Settings(**given)
    value = getattr(own[where if name else ""], name or setting)
    return own_task.entropy_weight if value is None else value  # type: ignore[attr-defined]


def same(value: Any, text: str) -> bool:
    return value == text if isinstance(value, str) else value == float(text)


@pytest.mark.parametrize("column", COLUMNS)
def test_the_profiles_have_the_published_settings(column: str) -> None:
    profile, task = loaded(column)
    found = facts(column)
    for (estimator, setting), text in found.items():
        theirs = {estimator}
        if estimator == "all" and setting.startswith("training."):
            theirs = {name for name in all_estimators() if (name, setting) not in found} | {"all"}
        for one in theirs:
            value = resolved(profile, task, one, setting)
            assert same(value, text), f"{setting} of {one} is {value}, {text} on the page"


def given(profile: Profile, task: str) -> Iterator[tuple[str, str]]:
    """Estimators ("all") and settings that a profile gives on a task."""
    part = profile.tasks[task]
    yield "all", "seeds"
    yield from (("all", f"training.{name}") for name in profile.training | part.training)
    yield from (("all", f"evaluation.{name}") for name in profile.evaluation | part.evaluation)
    yield from (("all", f"settings.{name}") for name in part.settings)
    for estimator, own in part.estimators.items():
        yield from ((estimator, f"training.{name}") for name in own.training)
        yield from ((estimator, f"settings.{name}") for name in own.settings)


@pytest.mark.parametrize("column", COLUMNS)
def test_the_page_has_all_that_the_profiles_set(column: str) -> None:
    assert {*given(*loaded(column))} <= {*facts(column)}
