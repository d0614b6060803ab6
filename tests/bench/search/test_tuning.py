"""Searches: trials are cells at seeds of their own, judged by validation, and none is lost."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import Trial, TrialState

from analysis.load import flatten_hyperparameters, load_results
from analysis.search import best_so_far
from analysis.trials import load_trials
from bench.cells.cell import FIRST_TUNING_SEED, plan
from bench.errors import StorageError, UserError
from bench.grid.runner import Execution, Outcome, PrunedError
from bench.profiles.profile import Profile, load_profile
from bench.search import tuning
from bench.search.results import write_results
from bench.search.space import search_space
from bench.search.studies import Budget, place
from bench.search.tuning import Search, StudyPlan, Trialled, check_comparable, run_search
from estimators.registry import all_estimators
from tasks.registry import all_tasks
from tests.bench.conftest import TINY


def searching(trials: int = 6, seeds: int = 1, pruner: tuning.PrunerName = "none") -> Search:
    return Search(Budget(trials, None), "tpe", pruner, seeds, 0, None)


def executing(folder: Path, jobs: int = 1) -> Execution:
    folder.mkdir(exist_ok=True)
    return Execution(folder, "tiny", None, "cpu", jobs, "a test")


def study_of(
    profile: Profile, estimator: str = "sfe-ma", objectives: tuple[str, ...] = ("accuracy",)
) -> StudyPlan:
    cell = plan(["signal_game"], [estimator], 1, profile)[0].cell
    space = search_space(cell, "decoder_calls" in objectives)
    return StudyPlan(f"tune:signal_game/{estimator}", cell, space, objectives)


def trials_of(found: StudyPlan, search: Search, execution: Execution) -> list[Any]:
    """Parameters and values of all trials that count, by place."""
    counted = found.open(search, execution).counted()
    return [(place(t), t.params, t.values) for t in sorted(counted, key=place)]


@pytest.fixture(scope="module")
def tiny_profile(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    path = tmp_path_factory.mktemp("profile") / "tiny.toml"
    path.write_text(TINY)
    return load_profile(str(path), [*all_tasks()], [*all_estimators()])


@pytest.fixture(scope="module")
def searched(
    tiny_profile: Profile, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Any]]:
    """A search of six trials, its folder, and its trials."""
    execution = executing(tmp_path_factory.mktemp("searched") / "tune")
    found, search = study_of(tiny_profile), searching()
    run_search([found], search, execution)
    # As if --dataset had named the digits, in place of the profile's own.
    write_results(None, execution, tiny_profile.with_dataset("signal_game", "mnist"))
    return execution.results, trials_of(found, search, execution)


def test_a_trial_is_a_cell_that_sees_no_test_data(searched: tuple[Path, list[Any]]) -> None:
    rows = flatten_hyperparameters(load_results(searched[0]))
    assert set(rows["seed"]) == {FIRST_TUNING_SEED}
    assert set(rows["split"]) == {"validation"}
    last = rows.groupby("key").tail(1).set_index("training.learning_rate")
    assert len(last) == 6
    for _, parameters, values in searched[1]:
        row = last.loc[parameters["training.learning_rate"]]
        assert row["estimator.decay"] == parameters["settings.decay"]
        assert row["training.entropy_weight"] == parameters["training.entropy_weight"]
        assert [row["accuracy"]] == values


def test_values_that_do_not_go_together_end_their_trial(
    tiny_profile: Profile, tmp_path: Path
) -> None:
    cold = tiny_profile.with_values("signal_game", "gumbel", {"settings.initial": 0.3})
    cold = cold.with_values("signal_game", "gumbel", {"settings.minimum": 0.3})
    found = study_of(cold, "gumbel").only(["minimum"])
    execution, ends = executing(tmp_path / "tune"), []
    run_search([found], searching(8), execution, ends.append)
    (state,) = {end.state for end in ends if end.parameters["settings.minimum"] > 0.3}
    assert state == "pruned"
    assert {e.state for e in ends} == {"pruned", "complete"}
    reason = "skipped: tune:signal_game/gumbel: initial = 0.3 is below minimum = 0"
    assert all(e.reason.startswith(reason) for e in ends if e.state == "pruned")


def test_the_first_trial_is_the_profiles(
    searched: tuple[Path, list[Any]], tiny_profile: Profile
) -> None:
    number, parameters, _ = searched[1][0]
    assert (number, parameters["settings.decay"]) == (0, 0.9)
    assert parameters["training.learning_rate"] == 1e-3


def test_the_best_becomes_a_profile(
    searched: tuple[Path, list[Any]], tiny_profile: Profile
) -> None:
    folder, trials = searched
    best = max(trials, key=lambda trial: (trial[2][0], -trial[0]))
    profile = load_profile(str(folder / "best.toml"), [*all_tasks()], [*all_estimators()])
    cell = plan(["signal_game"], ["sfe-ma"], 1, profile)[0].cell
    assert cell.training["learning_rate"] == best[1]["training.learning_rate"]
    assert cell.training["entropy_weight"] == best[1]["training.entropy_weight"]
    assert cell.estimator_settings["decay"] == best[1]["settings.decay"]
    assert cell.task_settings["dataset"] == "digits"
    found = profile.found()["signal_game/sfe-ma"]
    assert (found.study, found.trial) == ("tune:signal_game/sfe-ma", best[0])
    assert set(found.values) == set(best[1])
    others = profile.model_copy(update={"description": tiny_profile.description})
    assert others.tasks["ssvae"] == tiny_profile.tasks["ssvae"]
    table = load_trials(folder)
    assert best_so_far(table)[-1] == best[2][0]


def test_the_same_seed_gives_the_same_study_also_after_a_stop(
    searched: tuple[Path, list[Any]], tiny_profile: Profile, tmp_path: Path
) -> None:
    execution, found, search = executing(tmp_path / "tune"), study_of(tiny_profile), searching()

    def stop(trialled: Trialled) -> None:
        if trialled.place == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search([found], search, execution, stop)
    assert len(trials_of(found, search, execution)) == 3
    run_search([found], search, execution)
    assert trials_of(found, search, execution) == searched[1]


def test_a_stop_between_the_cells_of_a_trial_takes_nothing_from_the_pruner(
    tiny_profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluations of the first cell, which is stored, are told again."""
    longer = tiny_profile.model_copy(update={"training": {**tiny_profile.training, "epochs": 3}})
    found, search, run_cell = study_of(longer), searching(1, 2, "median"), tuning.run_cell

    def stop_at_the_second(cell: Any, *arguments: Any) -> Outcome:
        if cell.seed > FIRST_TUNING_SEED:
            raise KeyboardInterrupt
        return run_cell(cell, *arguments)

    reported = []
    for name in ("stopped", "at once"):
        execution = executing(tmp_path / name)
        if name == "stopped":
            monkeypatch.setattr(tuning, "run_cell", stop_at_the_second)
            with pytest.raises(KeyboardInterrupt):
                run_search([found], search, execution)
            monkeypatch.setattr(tuning, "run_cell", run_cell)
        run_search([found], search, execution)
        (trial,) = found.open(search, execution).counted()
        reported.append(trial.intermediate_values)
    assert reported[0] == reported[1] != {}


def test_studies_of_a_task_in_one_folder_can_be_compared(
    tiny_profile: Profile, tmp_path: Path
) -> None:
    execution, search = executing(tmp_path / "tune"), searching()
    study_of(tiny_profile).open(search, execution)
    other = study_of(tiny_profile, "rloo")
    check_comparable([other], search, execution)
    words = r"study tune:signal_game/sfe-ma was begun with another objectives \(stored"
    with pytest.raises(UserError, match=words):
        check_comparable([replace(other, objectives=("loss",))], search, execution)
    elsewhere = replace(other.cell, task="ssvae")
    check_comparable([replace(other, objectives=("loss",), cell=elsewhere)], search, execution)


def test_a_search_does_not_begin_again_in_a_folder_that_was_renamed(
    tiny_profile: Profile, tmp_path: Path
) -> None:
    """Its studies have the folder's name in theirs, and would not be found."""
    found, search = study_of(tiny_profile), searching()
    found.open(search, executing(tmp_path / "tune"))
    (tmp_path / "tune").rename(tmp_path / "a:b")
    execution = executing(tmp_path / "a:b")
    again = replace(found, name=found.name.replace("tune", "a:b"))
    words = "a:b holds a search that was begun in a folder of the name tune, after which its"
    with pytest.raises(UserError, match=words):
        check_comparable([again], search, execution)
    shared = replace(search, storage=f"sqlite:///{tmp_path}/studies.db")
    found.open(shared, execution)
    check_comparable([again], shared, execution)  # a database holds those of other folders
    other = executing(tmp_path / "c:d")
    again.open(search, other)
    with pytest.raises(UserError, match="begun in a folder of the name a:b"):
        check_comparable([found], search, other)


def test_a_trial_means_over_its_seeds(tiny_profile: Profile, tmp_path: Path) -> None:
    execution, found, search = executing(tmp_path / "x"), study_of(tiny_profile), searching(1, 2)
    run_search([found], search, execution)
    rows = load_results(execution.results).groupby("key").tail(1)
    assert set(rows["seed"]) == {FIRST_TUNING_SEED, FIRST_TUNING_SEED + 1}
    assert trials_of(found, search, execution)[0][2] == [rows["accuracy"].mean()]


def test_a_diverged_trial_is_pruned_with_its_reason(tiny_profile: Profile, tmp_path: Path) -> None:
    wild = tiny_profile.with_values("signal_game", "sfe-ma", {"training.learning_rate": 1e30})
    execution, found, search = executing(tmp_path / "tune"), study_of(wild), searching(1)
    ended: list[Trialled] = []
    run_search([found], search, execution, ended.append)
    assert [trialled.state for trialled in ended] == ["pruned"]
    assert "diverged" in (ended[0].reason or "")
    write_results(None, execution, wild)
    trials = load_trials(execution.results)
    assert trials["state"].tolist() == ["pruned"]
    assert "at step" in trials["reason"][0]


def faked(values: dict[int, list[float]], statuses: dict[int, str]) -> Any:
    """A runner whose trials have given curves, by the order in which they run, and a status."""
    runs = iter(range(100))

    def run_cell(cell: Any, execution: Execution, beside: int, watch: Any) -> Outcome:
        run = next(runs)
        try:
            for epoch, value in enumerate(values.get(run, [])):
                watch({"epoch": epoch, "accuracy": value})
        except PrunedError as error:
            return Outcome(cell, "pruned", str(error))
        return Outcome(cell, statuses.get(run, "ok"), "because" if run in statuses else None)

    return run_cell


def fake(monkeypatch: pytest.MonkeyPatch, values: Any, statuses: Any) -> None:
    monkeypatch.setattr(tuning, "run_cell", faked(values, statuses))
    row = {"accuracy": 0.5, "loss": 1.0, "decoder_calls": 1.0, "train_seconds": 0.1}
    monkeypatch.setattr(tuning, "last_row", lambda results, cell: row)


def test_a_trial_below_the_median_is_pruned(
    tiny_profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = tiny_profile.model_copy(update={"training": {**tiny_profile.training, "epochs": 6}})
    good, bad = [0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9], [0.0, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1]
    slow, sudden = [0.0, 0.1, 0.6, 0.7, 0.8, 0.9, 0.9], [0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.0]
    fake(monkeypatch, dict.fromkeys(range(5), good) | {5: bad, 6: slow, 7: sudden}, {})
    ended: list[Trialled] = []
    run_search(
        [study_of(longer)], searching(8, pruner="median"), executing(tmp_path / "x"), ended.append
    )
    complete = ["complete"] * 5
    assert [trialled.state for trialled in ended] == [*complete, "pruned", "complete", "complete"]
    assert ended[5].reason == "accuracy 0.1 at epoch 2"


def test_a_trial_without_a_number_to_go_by_is_over(
    tiny_profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, {}, {})
    row = {"accuracy": float("nan"), "loss": 1.0, "decoder_calls": 1.0, "train_seconds": 0.1}
    monkeypatch.setattr(tuning, "last_row", lambda results, cell: row)
    ended: list[Trialled] = []
    run_search([study_of(tiny_profile)], searching(2), executing(tmp_path / "x"), ended.append)
    assert [(one.place, one.state, one.reason) for one in ended] == [
        (0, "pruned", "no finite accuracy"), (1, "pruned", "no finite accuracy"),
    ]  # fmt: skip


def test_a_failure_is_told_and_counts(
    tiny_profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, {}, {1: "failed"})
    ended: list[Trialled] = []
    run_search([study_of(tiny_profile)], searching(3), executing(tmp_path / "x"), ended.append)
    states = [(trialled.state, trialled.reason) for trialled in ended]
    assert states == [("complete", None), ("failed", "because"), ("complete", None)]


def test_a_database_that_goes_ends_the_search_and_no_trial(
    tiny_profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trial is none of its failures, and is run by the same command."""
    training = tiny_profile.training | {"epochs": 3}
    found = study_of(tiny_profile.model_copy(update={"training": training}))
    database = tmp_path / "studies.db"
    search = replace(searching(1), storage=f"sqlite:///{database}")
    execution, report = executing(tmp_path / "tune"), Trial.report

    def rename(old: str, new: str) -> None:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(f"ALTER TABLE {old} RENAME TO {new}")

    def gone(*arguments: Any) -> None:
        rename("trials", "hidden")
        report(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trial, "report", gone)
        words = rf"--storage sqlite:///{database}: .*no such table: trials: mend that, and run the"
        with pytest.raises(StorageError, match=words):
            run_search([found], search, execution)
    assert not [*tmp_path.rglob("*.parquet")]
    rename("hidden", "trials")
    study = found.open(search, execution)
    (trial,) = study.trials(TrialState.RUNNING)
    study.withdraw(trial.user_attrs["run"])  # as this process has not died of it
    ended: list[Trialled] = []
    run_search([found], search, execution, ended.append)
    assert [(trialled.place, trialled.state) for trialled in ended] == [(0, "complete")]


def test_several_objectives_are_all_kept(tiny_profile: Profile, tmp_path: Path) -> None:
    found = study_of(tiny_profile, "rloo", ("accuracy", "decoder_calls"))
    # The folder that the study is named after: results are of its own studies alone.
    execution, search = executing(tmp_path / "tune"), searching(3, pruner="median")
    run_search([found], search, execution)
    write_results(None, execution, tiny_profile)
    assert {*load_trials(execution.results)["pruner"]} == {"none"}
    trials = trials_of(found, search, execution)
    samples = [parameters["settings.samples"] for _, parameters, _ in trials]
    assert [values[1] for _, _, values in trials] == samples
