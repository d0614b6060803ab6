"""Options of a run as a user writes them, and what is refused."""

import os
import time
from pathlib import Path

import joblib
import pytest
from cyclopts import App

from analysis.stored import JOURNAL, TRIALS
from bench.cli.options import Grid
from bench.errors import UserError
from bench.grid.runner import Execution
from bench.profiles.profile import Profile
from estimators.registry import all_estimators, wings
from tasks.registry import all_tasks
from tests.bench.conftest import Here


def execution(out: Path, *options: object) -> Execution:
    """How these options have cells run."""
    app = App()

    def found(*, grid: Grid = Grid()) -> Execution:  # noqa: B008
        grid.check()
        return grid.execution("training")

    app.default(found)
    words = [*map(str, options), "--out", str(out)]
    return app(words, exit_on_error=False, result_action="return_value")  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("90s", 90), ("10m", 600), ("1h30m", 5400)]
)
def test_times_are_seconds_or_have_units(tmp_path: Path, text: str, seconds: float) -> None:
    before = time.time()
    limits = execution(tmp_path, "--time-limit", text, "--grid-time-limit", text).limits
    assert limits.seconds == seconds
    assert limits.ends is not None
    assert before <= limits.ends - seconds <= time.time()


@pytest.mark.parametrize(("text", "size"), [("2G", 2e9), ("512MiB", 2**29), ("3000", 3000)])
def test_memory_has_units(tmp_path: Path, text: str, size: int) -> None:
    assert execution(tmp_path, "--max-memory", text).limits.memory == size


def test_nothing_is_limited_and_failures_are_retried_by_default(tmp_path: Path) -> None:
    found = execution(tmp_path)
    assert found.limits.left() is None
    assert found.limits.memory is None
    assert (found.retry, found.force, found.scheduler) == (True, False, None)
    found = execution(tmp_path, "--retry", 0, "--force")
    assert (found.retry, found.force) == (False, True)


def test_there_are_as_many_jobs_as_cores_that_may_be_used(tmp_path: Path) -> None:
    """By taskset, or a scheduler, say."""
    usable = os.sched_getaffinity(0)
    assert execution(tmp_path).jobs == joblib.cpu_count() <= len(usable)
    try:
        os.sched_setaffinity(0, {min(usable)})
        assert execution(tmp_path).jobs == 1
        assert execution(tmp_path, "--threads", 2).jobs == 1
    finally:
        os.sched_setaffinity(0, usable)


def test_there_is_one_job_where_the_system_allows_no_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In which joblib goes on in this one: no cell runs beside another then."""
    monkeypatch.setattr("joblib._parallel_backends.mp", None)
    assert execution(tmp_path, "--jobs", 2).jobs == 1


def test_a_folder_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which a shell leaves as it is in --out=~/x, and in a variable in quotes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BENCH_DATA_DIR", "~/data")
    assert execution(Path("~/out")).results == tmp_path / "out"
    assert execution(tmp_path).data_dir == tmp_path / "data"
    assert execution(tmp_path, "--data-dir", "~/other").data_dir == tmp_path / "other"
    with pytest.raises(UserError, match=f"profile {tmp_path}/own.toml: no such file"):
        Grid(profile="~/own.toml").load_profile()


def test_all_tasks_are_those_of_the_profile_whatever_is_named_beside(profile: Profile) -> None:
    own = profile.model_copy(update={"tasks": {"bitvector": profile.tasks["bitvector"]}})
    one, both = {"bitvector"}, {"ssvae", "bitvector"}
    for named, tasks in (("all", one), ("all,bitvector", one), ("ssvae,all", both)):
        planned = Grid(tasks=named, estimators="sfe,all", seeds=1).plan(own)
        assert {item.cell.task for item in planned} == tasks
        assert {item.cell.estimator for item in planned} == {*all_estimators()}


def chosen(profile: Profile, estimators: str) -> list[str]:
    """The estimators of a grid, in its order."""
    planned = Grid(tasks="bitvector", estimators=estimators, seeds=1).plan(profile)
    return [item.cell.estimator for item in planned]


def test_a_wing_stands_for_its_members_in_the_order_given(profile: Profile) -> None:
    relaxed = wings()["relaxed"]
    assert len(relaxed) > 1
    assert chosen(profile, "relaxed,rloo") == [*relaxed, "rloo"]
    assert chosen(profile, "rloo, none,relaxed") == ["rloo", "none", *relaxed]
    last = relaxed[-1]
    assert chosen(profile, f"{last},relaxed,{last}") == [last, *relaxed[:-1]]
    others = [name for name in all_estimators() if name not in relaxed]
    assert chosen(profile, "relaxed,all") == [*relaxed, *others]


def test_all_estimators_are_those_that_the_profile_names(profile: Profile) -> None:
    some = profile.model_copy(update={"estimators": ["rloo", "dense"]})
    assert chosen(some, "all") == ["rloo", "dense"]
    assert chosen(some, "sfe,all") == ["sfe", "rloo", "dense"]


def test_an_estimator_counts_before_a_wing_of_its_name(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {"dense": ["sfe", "rloo"], "all": ["sfe"], "theirs": ["sfe", "nvil"]}
    monkeypatch.setattr("estimators.registry.wings", lambda: groups)
    assert chosen(profile, "dense,theirs") == ["dense", "sfe", "nvil"]
    assert chosen(profile, "all") == [*all_estimators()]


def test_tasks_are_in_the_order_given_too(profile: Profile) -> None:
    """All are in the registry's, whatever the profile's is."""
    assert [*profile.tasks] != [*all_tasks()]
    for named, tasks in (
        ("ssvae,bitvector,ssvae", ["ssvae", "bitvector"]), ("all", [*all_tasks()]),
    ):  # fmt: skip
        planned = Grid(tasks=named, estimators="none", seeds=1).plan(profile)
        assert [item.cell.task for item in planned] == tasks


@pytest.mark.parametrize(("value", "folder"), [("", None), ("some/where", Path("some/where"))])
def test_an_empty_variable_names_no_folder_of_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, folder: Path | None
) -> None:
    monkeypatch.setenv("BENCH_DATA_DIR", value)
    assert execution(tmp_path).data_dir == folder
    assert execution(tmp_path, "--data-dir", "there").data_dir == Path("there")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--time-limit", "0"), "--time-limit 0.0: give more than 0"),
        (("--time-limit", "inf"), "--time-limit inf: give more than 0"),
        (("--time-limit", "nan"), "--time-limit nan: give more than 0"),
        (("--grid-time-limit", "-5"), "--grid-time-limit -5.0: give more than 0"),
        (("--time-limit", "1e10"), "give more than 0 and at most 1e9, as 90, 10m or 2h"),
        (("--max-memory", "8EiB"), "give more than 0, below 8EiB, as 2G"),
        (("--max-memory", "0"), "--max-memory 0: give more than 0"),
        (("--executor", "dask"), "--executor dask and --scheduler ADDRESS go together"),
        (("--scheduler", "tcp://host:1"), "--executor dask and --scheduler ADDRESS go together"),
        (("--executor", "dask", "--scheduler", "a", "--max-memory", "2G"), "--max-memory with"),
        (("--executor", "dask", "--scheduler", "a", "--jobs", "2"), "--jobs with"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        execution(tmp_path, *options)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--time-limit", "soon"), '"soon" is no time: give seconds, or 90s, 10m, 2h'),
        (("--max-memory", "2 bananas"), "unit: bananas"),
        (("--retry", "2"), "Choose from: 0, 1"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_line(
    here: Here, tmp_path: Path, option: tuple[str, str], words: str
) -> None:
    done = here("--out", tmp_path, *option)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert option[0] in done.stderr
    assert option[1] in done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [(), ("tune",), ("status",)])
def test_a_name_that_is_no_utf_8_is_told_before_anything_runs(
    here: Here, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """No row could hold the command line, nor a terminal show it."""
    out = f"{tmp_path}/\udcff"
    done = here(*command, *(() if command == ("status",) else ("--out",)), out)
    assert done.returncode == 2
    assert done.stderr == f"error: {out!r} is no UTF-8: give another name\n"
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["", "cells", "running", "figures"])
def test_what_stands_where_a_folder_belongs_is_named(tmp_path: Path, name: str) -> None:
    place = tmp_path / "results" / name
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f": {place} is no folder: remove it, or give another"):
        execution(tmp_path / "results")


@pytest.mark.parametrize("file", [TRIALS, JOURNAL])
def test_no_grid_is_run_in_the_folder_of_a_search(tmp_path: Path, file: str) -> None:
    """Also not of one that has just begun."""
    (tmp_path / file).touch()
    with pytest.raises(UserError, match="holds a search: give another folder"):
        execution(tmp_path)


@pytest.mark.parametrize(
    "option",
    [("--retry", 0), ("--force",), ("--grid-time-limit", "1h")],
)
def test_a_search_refuses_what_is_for_grids(
    here: Here, tmp_path: Path, option: tuple[object, ...]
) -> None:
    done = here("tune", "--task", "ssvae", "--out", tmp_path, *option)
    assert done.returncode == 2
    assert done.stderr == f"error: {option[0]} is for grids, a search goes without it\n"
