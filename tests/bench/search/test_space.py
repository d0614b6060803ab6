"""What a search varies: that it is declared rightly, and that every value arrives."""

import itertools
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BaseModel

from bench.cells import training
from bench.cells.cell import Cell, plan
from bench.cells.training import Trainer
from bench.errors import UserError
from bench.profiles.profile import Profile, TrainingSettings
from bench.search.space import check_names, search_space, starting_point, suggest
from bench.search.tuning import trial_cell
from estimators.registry import all_estimators
from estimators.searched import searched
from tasks.registry import all_tasks
from tests.bench.conftest import cell_of
from tests.pairs import ONE_EACH


class Spy:
    """Settings that note which of them are read."""

    def __init__(self, settings: BaseModel) -> None:
        self._settings = settings
        self.read: dict[str, Any] = {}

    @property
    def __class__(self) -> type:
        """For whoever checks the type of settings."""
        return type(self._settings)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._settings, name)
        self.read[name] = value
        return value


def corners(cell: Cell) -> list[dict[str, Any]]:
    """Two points of a cell's space, apart in every parameter, neither of them the cell's own."""
    space = search_space(cell, costs=True)
    start = starting_point(cell)
    points: list[dict[str, Any]] = [{}, {}]
    for name, among in space.items():
        if isinstance(among, CategoricalDistribution):
            points[0][name], points[1][name] = among.choices[0], among.choices[-1]
            continue
        assert isinstance(among, (FloatDistribution, IntDistribution))
        points[0][name], points[1][name] = among.low, min(among.high, 3 * among.low + 0.2)
        if isinstance(among, IntDistribution):
            points[1][name] = among.low + 1
    assert any(points[0][name] != start.get(name) for name in space)
    return points


@pytest.mark.parametrize(("task", "estimator"), ONE_EACH)
def test_every_value_arrives(
    task: str, estimator: str, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the optimizer, at the step, or where the estimator reads its settings."""
    start = cell_of(profile, task, estimator)
    passed: dict[str, Any] = {}
    real = training.training_loss

    def spied(*arguments: Any, **named: Any) -> Any:
        passed.update(named)
        return real(*arguments, **named)

    monkeypatch.setattr(training, "training_loss", spied)
    spies: list[Spy] = []
    estimator_class = all_estimators()[estimator]
    build = estimator_class.__init__

    def built(self: Any, space: Any, settings: Any, features: int) -> None:
        spies.append(Spy(settings))
        build(self, space, spies[-1], features)

    monkeypatch.setattr(estimator_class, "__init__", built)
    for values in corners(start):
        spies.clear()
        trainer = Trainer(trial_cell(start, values, seed=10_000))
        trainer.train(1)
        rates = [group["lr"] for group in trainer.optimizer.param_groups]
        arrived = {
            "training.learning_rate": rates[0],
            "training.baseline_learning_rate": rates[-1] if len(rates) == 2 else None,
            "training.entropy_weight": passed["entropy_weight"],
        } | {f"settings.{name}": value for name, value in spies[0].read.items()}
        assert {name: arrived.get(name) for name in values} == values


@pytest.mark.parametrize(("task", "estimator"), ONE_EACH)
def test_ends_of_the_ranges_are_allowed_together(
    task: str, estimator: str, profile: Profile
) -> None:
    start = cell_of(profile, task, estimator)
    ends = {
        name: (among.low, among.high)
        for name, among in search_space(start, costs=True).items()
        if isinstance(among, (FloatDistribution, IntDistribution))
    }
    for corner in itertools.product(*ends.values()):
        values = dict(zip(ends, corner, strict=True))
        trial_cell(start, values, seed=0)  # pydantic raises where they are not


def test_costs_are_left_out_unless_asked_for(profile: Profile) -> None:
    cell = cell_of(profile, "ssvae", "sum-and-sample")
    assert {"training.learning_rate", "settings.decay", "settings.summed"} == set(
        search_space(cell, False)
    )
    more = set(search_space(cell, True)) - set(search_space(cell, False))
    assert more == {"settings.k", "settings.samples"}


def test_a_task_adds_its_own(profile: Profile) -> None:
    names = {
        task: set(search_space(cell_of(profile, task, "dense"), False)) for task in all_tasks()
    }
    assert names["signal_game"] - names["ssvae"] == {"training.entropy_weight"}


def test_the_start_is_the_cells_own_and_within(profile: Profile) -> None:
    wide = profile.with_values("signal_game", "sfe-ma", {"training.learning_rate": 0.2})
    cell = cell_of(wide, "signal_game", "sfe-ma")
    start = starting_point(cell)
    assert start["training.learning_rate"] == 0.2
    assert start["training.entropy_weight"] == cell.task_settings["entropy_weight"]
    space = search_space(cell, False)
    rate = space["training.learning_rate"]
    assert isinstance(rate, FloatDistribution)
    assert rate.high == 0.2


def test_suggestions_are_of_the_settings_types(profile: Profile) -> None:
    cell = plan(["bitvector"], ["topk-sparsemax"], 1, profile)[0].cell
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = search_space(cell, False)
    for _ in range(5):
        values = suggest(study.ask(), space)
        assert isinstance(values["settings.k"], int)
        assert 2 <= values["settings.k"] <= 32
        assert 1e-4 <= values["training.learning_rate"] <= 3e-2


def test_names_are_checked(profile: Profile) -> None:
    spaces = {
        name: search_space(cell_of(profile, "ssvae", name), False) for name in ("sfe", "gumbel")
    }
    check_names(["learning_rate"], spaces)
    with pytest.raises(UserError, match="did you mean 'learning_rate'"):
        check_names(["learning_rte"], spaces)
    with pytest.raises(UserError, match="sfe has none of initial to search, it has learning_rate"):
        check_names(["initial"], spaces)


def test_what_may_be_searched_of_training_is_named_somewhere() -> None:
    named = {"learning_rate"}.union(
        *(kind.searched_training for kind in [*all_tasks().values(), *all_estimators().values()])
    )
    assert named == set(searched(TrainingSettings))
