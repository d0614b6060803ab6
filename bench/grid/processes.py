"""Worker processes of this machine."""

import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

from joblib import Parallel, delayed

Call = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of a module, and its arguments."""


def side_by_side(calls: Iterable[Call], jobs: int, ahead: int) -> Iterator[Any]:
    """Results of calls as they come.

    Args:
        calls: each is taken when a process is free for it, but for those that wait.
        jobs: how many at a time. One at a time is called in this process.
        ahead: how many wait, so that no process has to.
    Raises:
        BrokenProcessPool: a process has died.
    """
    # joblib replaces a process that has grown, as one that keeps its memory does.
    warnings.filterwarnings("ignore", "A worker stopped while", UserWarning)
    pool = Parallel(
        n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=jobs + ahead
    )
    with deaf_children():
        results = pool(delayed(function)(*arguments) for function, arguments in calls)
    yield from results


@contextmanager
def deaf_children() -> Iterator[None]:
    """Have processes that are started in the block take no Ctrl-C, which ends them through us.

    A terminal sends it to all, and one that is still importing would print a traceback. They
    inherit that the signal is blocked in this thread. One that comes for us meanwhile is not lost.
    """
    resource_tracker.ensure_running()  # which is started with a process, and would unblock it again
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
