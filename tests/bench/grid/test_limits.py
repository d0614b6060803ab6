"""Limits stop what goes beyond them, and leave nothing behind."""

import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from bench.grid.limits import Limits, TimeLimitError, in_memory, in_time
from tests.bench.conftest import ROOT


def test_an_alarm_ends_a_block_and_is_off_afterwards() -> None:
    before = signal.getsignal(signal.SIGALRM)
    start = time.monotonic()
    said = pytest.raises(TimeLimitError, match=r"took more than 0\.2 s \(--time-limit\)")
    with said, in_time(Limits(seconds=0.2, grace=0.2)):
        time.sleep(30)
    assert time.monotonic() - start < 10
    with in_time(Limits(seconds=60)):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) == before


def test_what_an_alarm_breaks_may_say_what_it_likes() -> None:
    said = pytest.raises(TimeLimitError, match="took more than")
    with said, in_time(Limits(seconds=0.1, grace=0.1)):
        try:
            time.sleep(30)
        except TimeLimitError as error:
            raise ImportError("half a module") from error


def test_a_failure_in_time_is_a_failure() -> None:
    with pytest.raises(ZeroDivisionError), in_time(Limits(seconds=60)):
        raise ZeroDivisionError


def test_the_nearer_of_two_limits_counts() -> None:
    soon = time.time() + 5
    nearer, later = Limits(seconds=60, ends=soon).left(), Limits(seconds=1, ends=soon).left()
    assert nearer is not None
    assert 4 < nearer.seconds <= 5
    assert "--grid-time-limit" in nearer.reason
    assert later is not None
    assert later.seconds == 1
    assert "--time-limit" in later.reason
    assert Limits().left() is None


def test_in_another_thread_the_time_is_looked_at() -> None:
    caught = []

    def work() -> None:
        with in_time(Limits(seconds=0.1)) as check:
            check()
            time.sleep(0.2)
            try:
                check()
            except TimeLimitError as error:
                caught.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert caught == ["took more than 0.1 s (--time-limit)"]


def test_allocations_fail_beyond_the_memory_and_only_in_the_block() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limits = Limits(memory=2**32)
    errors = []
    with in_memory(limits):
        for allocate in (lambda: np.ones(2**30), lambda: torch.ones(2**31)):  # 8 GiB
            try:
                allocate()
            except (MemoryError, RuntimeError) as error:
                errors.append(error)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert [limits.explains(error) for error in errors] == [True, True]
    assert not Limits().explains(errors[0])
    assert not limits.explains(ValueError("another"))
    assert limits.explains(ImportError("lib.so: failed to map segment from shared object"))


def test_a_process_that_hears_no_alarm_is_ended() -> None:
    code = (
        "import itertools, bench.grid.limits as l\n"
        "limits = l.Limits(seconds=0.1, grace=0.2)\n"
        "with l.killed_if_stuck(limits), l.in_time(limits):\n"
        "    sum(itertools.repeat(0))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, capture_output=True)
    assert done.returncode == 1
    assert not done.stderr


def test_a_process_that_stops_in_time_lives_on() -> None:
    code = (
        "import time, bench.grid.limits as l\n"
        "with l.killed_if_stuck(l.Limits(seconds=0.1, grace=0.1)):\n"
        "    pass\n"
        "time.sleep(0.5)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
