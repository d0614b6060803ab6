"""The time left: each estimator by its own cells, as soon as there are any."""

import pytest

from bench.cli.pace import Pair, Running, time_left

FAST, SLOW, OTHER = ("game", "sfe"), ("game", "dense"), ("images", "sfe")


def test_nothing_is_known_before_anything_has_ended_or_moved() -> None:
    assert time_left({FAST: 3}, [Running(FAST, 0.0, None)], {}, 1) is None


def test_nothing_left_takes_no_time() -> None:
    assert time_left({}, [], {FAST: [2.0]}, 4) == 0


@pytest.mark.parametrize(
    ("waiting", "jobs", "seconds"),
    [
        ({FAST: 3}, 1, 6),
        ({FAST: 3}, 3, 2),
        ({FAST: 3, SLOW: 2}, 1, 3 * 2 + 2 * 20),  # and not five times their mean
        ({FAST: 3, SLOW: 2}, 2, 23),
        ({FAST: 1, SLOW: 1}, 8, 20),  # the longest is waited for, however many run beside it
        ({FAST: 0, SLOW: 0}, 1, 0),
    ],
)
def test_each_pair_takes_as_long_as_its_own_cells(
    waiting: dict[Pair, int], jobs: int, seconds: float
) -> None:
    assert time_left(waiting, [], {FAST: [1.0, 3.0], SLOW: [20.0]}, jobs) == seconds


def test_a_cell_that_runs_tells_of_those_that_wait() -> None:
    """At a tenth in two seconds it takes twenty, of which eighteen are left."""
    running = [Running(SLOW, 0.1, 0.05)]
    assert time_left({SLOW: 1}, running, {FAST: [2.0]}, 1) == pytest.approx(18 + 20)


def test_what_has_ended_tells_more_of_those_that_wait_than_what_runs() -> None:
    assert time_left({SLOW: 1}, [Running(SLOW, 0.5, 1.0)], {SLOW: [20.0]}, 1) == 0.5 + 20


def test_a_cell_that_has_not_moved_takes_as_long_as_others_of_its_pair() -> None:
    assert time_left({}, [Running(SLOW, 0.25, None)], {SLOW: [20.0]}, 1) == 15


def test_an_unknown_pair_takes_as_long_as_its_task_does_or_else_all_do() -> None:
    finished = {FAST: [2.0], SLOW: [20.0], OTHER: [100.0, 100.0]}
    assert time_left({("game", "nvil"): 1}, [], finished, 1) == 11
    assert time_left({("third", "nvil"): 1}, [], finished, 1) == pytest.approx(122 / 3)
