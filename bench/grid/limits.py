"""What a cell may take: time, and memory."""

import faulthandler
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

NO_MEMORY = (
    "can't allocate memory", "bad_alloc", "out of memory", "can't start new thread",
    "failed to map segment",
)  # fmt: skip
"""What is said where memory lacks by exceptions that are no `MemoryError`, as torch's, or as that
of an import whose library has no room."""


class TimeLimitError(Exception):
    """A cell's time is over; the message says which limit it was."""


class Left(NamedTuple):
    """What is left of the time."""

    seconds: float
    reason: str


@dataclass(frozen=True)
class Limits:
    """None where there is no limit."""

    seconds: float | None = None
    """Of a cell."""
    ends: float | None = None
    """When the grid's time is over, as `time.time()` has it."""
    memory: int | None = None
    """Bytes of data of a process, all that torch and the interpreter take included."""
    grace: float = 10.0
    """Seconds more in which a cell has to stop and be stored, before its process is killed."""

    def left(self) -> Left | None:
        """How long a cell that begins now may take."""
        both = []
        if self.seconds is not None:
            both.append(Left(self.seconds, f"took more than {self.seconds:g} s (--time-limit)"))
        if self.ends is not None:
            reason = "the grid's time was over (--grid-time-limit)"
            both.append(Left(self.ends - time.time(), reason))
        return min(both, default=None)

    def over(self) -> bool:
        """Whether the grid's time is over."""
        return self.ends is not None and time.time() >= self.ends

    def explains(self, error: Exception) -> bool:
        """Whether an exception comes from the limit of memory."""
        lacking = isinstance(error, MemoryError) or any(word in str(error) for word in NO_MEMORY)
        return self.memory is not None and lacking


@contextmanager
def in_time(limits: Limits) -> Iterator[Callable[[], None]]:
    """Raise `TimeLimitError` when the time of the block is over.

    That is when the function that is yielded is called, between two steps. A main thread that has
    not called it for half of the grace is interrupted wherever it is.
    """
    left = limits.left()
    if left is None:
        yield lambda: None
        return
    end = time.monotonic() + left.seconds

    def check() -> None:
        if time.monotonic() >= end:
            raise TimeLimitError(left.reason)

    with _alarm(max(left.seconds, 0) + limits.grace / 2, check):
        try:
            yield check
        except Exception as error:
            if time.monotonic() >= end:  # what the alarm broke may have made its own of it
                raise TimeLimitError(left.reason) from error
            raise


@contextmanager
def _alarm(seconds: float, ring: Callable[[], None]) -> Iterator[None]:
    """Call a function between two lines of the block after some time, in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda number, frame: ring())
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def killed_if_stuck(limits: Limits) -> Iterator[None]:
    """End this process if the block goes on long after its time: it hangs where no alarm rings."""
    left = limits.left()
    if left is None:
        yield
        return
    with Path(os.devnull).open("w") as nowhere:
        later = max(left.seconds, 0) + limits.grace
        faulthandler.dump_traceback_later(later, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


@contextmanager
def in_memory(limits: Limits) -> Iterator[None]:
    """Have allocations fail in the block that take the process beyond its limit, on Linux."""
    if limits.memory is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = limits.memory if hard == resource.RLIM_INFINITY else min(limits.memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
