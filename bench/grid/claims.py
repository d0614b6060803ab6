"""Who runs a cell: whoever holds the lock of its file, so that several runs may share a folder.

    <results>/running/<key>        the share of the cell that is done, as text; or of the model that
                                   cells start from
    <results>/running/grid         nothing: held by who writes the grid or the report

The system frees a lock with the process that has it, however that ends. So nothing is ever taken
for running that isn't, and no clock is read. A file without a lock is what a killed process left.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GRID_CLAIM = "grid"
"""The name of the claim on what a folder has one of, beside those of cells."""

POLL_SECONDS = 1.0
"""Between two looks at a claim that can't be waited for."""

REPORT_SECONDS = 0.3
"""Least time between two looks at the progress of a cell."""

Report = Callable[[float], None]
"""Told of the share of a cell that is done, in [0, 1]."""


@contextmanager
def claimed(path: Path, wait: bool = False) -> Iterator[Report | None]:
    """Hold a claim, unless another process or thread has it: None then.

    Args:
        path: the claim's file, which is removed at the end.
        wait: until the other lets go.
    """
    file = _lock(path, wait)
    if file is None:
        yield None
        return
    try:
        yield _reporter(file)
    finally:
        with suppress(PermissionError):  # another user's, in a folder where each removes his own
            path.unlink(missing_ok=True)  # before the lock goes, so that nobody else's is removed
        os.close(file)


@contextmanager
def folder_claimed(results: Path) -> Iterator[None]:
    """Be alone in writing what a results folder has one of, its grid and its report.

    Waits for another that does so. No cell is kept from running meanwhile.
    """
    folder = results / "running"
    with claimed(folder / GRID_CLAIM, wait=True):
        yield
    with suppress(OSError):  # cells run
        folder.rmdir()


def is_claimed(path: Path) -> bool:
    """Whether a process that is alive holds a claim."""
    return _state(path) == "held"


def is_abandoned(path: Path) -> bool:
    """Whether the process that held a claim has died of it."""
    return _state(path) == "left"


def running(folder: Path) -> dict[str, Path]:
    """The claims in a folder that processes hold on cells, by key."""
    files = {file.name: file for file in folder.glob("*") if file.name != GRID_CLAIM}
    return {key: file for key, file in files.items() if is_claimed(file)}


def sweep(folder: Path) -> None:
    """Remove the claims that dead processes left, as far as one may."""
    for path in folder.glob("*"):
        with suppress(PermissionError), claimed(path):
            pass


def _state(path: Path) -> str | None:
    """Whether a claim is held, or left, or not there: nothing that needs the right to write."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except PermissionError:  # another user's, who will know
        return "held"
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for which NFS is content with reading
    except BlockingIOError:
        return "held"
    except OSError:  # as in `_lock`
        pass
    finally:
        os.close(file)
    return "left"


def _lock(path: Path, wait: bool) -> int | None:
    """An open file with its lock, made if it is not there; None if another has it.

    Raises:
        PermissionError: it can't be made, or it is another user's who lets nobody read it.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = _open(path)
        except FileNotFoundError:  # another run ended just now, and removed the folder
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(file)
            return None
        except OSError:  # NFS locks no file that may only be read, and some systems lock none
            if _state(path) != "held":
                return file  # as if there were no other run
            os.close(file)
            if not wait:
                return None
            time.sleep(POLL_SECONDS)
            continue
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)  # who had it has removed it meanwhile: others would not see this lock


def _open(path: Path) -> int:
    """Open the file of a claim, made if it is not there; to read, where it is another user's."""
    with suppress(PermissionError):
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with suppress(FileNotFoundError):  # it can't be made, or has just been removed
        return os.open(path, os.O_RDONLY)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def _reporter(file: int) -> Report:
    """Write the share done into a claim's file, a few times a second at most."""
    last = -REPORT_SECONDS

    def report(share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REPORT_SECONDS:
            with suppress(OSError):  # progress is worth no failure
                os.pwrite(file, f"{share:.4f}".encode(), 0)  # always as long: never half written
            last = now

    report(0.0)
    return report
