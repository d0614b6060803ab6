"""Worker processes of this machine: they leave Ctrl-C to the one that started them."""

import os
import signal

import pytest

from bench.grid.processes import Call, deaf_children, side_by_side


def blocked() -> set[signal.Signals]:
    """The signals that do not reach this process."""
    return {signal.Signals(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, set())}


def test_workers_take_no_interrupt_but_alarms() -> None:
    calls: list[Call] = [(blocked, ())] * 4
    found = [*side_by_side(calls, jobs=2, ahead=2)]
    assert len(found) == 4
    assert all(signal.SIGINT in one and signal.SIGALRM not in one for one in found)
    assert signal.SIGINT not in blocked()


def test_one_at_a_time_is_called_here_and_can_be_interrupted() -> None:
    assert {*side_by_side([(os.getpid, ())] * 2, jobs=1, ahead=0)} == {os.getpid()}
    assert [*side_by_side([(blocked, ())], jobs=1, ahead=0)] == [set()]


def test_an_interrupt_that_comes_meanwhile_is_not_lost() -> None:
    """It comes at once by way of another thread, or after the block where there is none."""

    def start_processes() -> None:
        with deaf_children():
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        start_processes()
    assert signal.SIGINT not in blocked()
