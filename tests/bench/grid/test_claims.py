"""One holder at a time, whatever becomes of it."""

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.grid.claims import claimed, folder_claimed, is_abandoned, is_claimed, sweep
from tests.bench.conftest import ROOT

HOLD = """
import pathlib, sys, time
from bench.grid.claims import claimed
with claimed(pathlib.Path(sys.argv[1])) as report:
    report(0.5)
    print(report is not None, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "running" / "key"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the claim."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_a_claim_is_one_process_s_until_it_dies(path: Path, holder: subprocess.Popen[str]) -> None:
    assert is_claimed(path)
    assert not is_abandoned(path)
    with claimed(path) as report:
        assert report is None
    sweep(path.parent)
    assert path.exists()

    holder.kill()
    holder.wait()
    assert not is_claimed(path)
    assert is_abandoned(path)
    with claimed(path) as report:
        assert report is not None
        assert is_claimed(path)
    assert not path.exists()


def test_what_a_dead_process_left_is_swept_away(path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    sweep(path.parent)
    assert not path.exists()


def test_a_claim_can_be_looked_at_without_the_right_to_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder of another user's: what a killed run left there is not held."""
    real = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, mode)

    with claimed(path), monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert is_claimed(path)
    path.touch()
    monkeypatch.setattr(os, "open", refuse)
    assert is_abandoned(path)
    assert not is_claimed(path)


@pytest.fixture
def anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims that are there are another user's: they can be read, and no more."""
    real = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY) and Path(path).exists():
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)


@pytest.mark.usefixtures("anothers")
def test_a_claim_that_another_user_left_is_swept_away_or_taken(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    sweep(path.parent)
    assert not path.exists()
    path.touch()
    with claimed(path, wait=True) as report:
        assert report is not None
        report(0.5)  # which can't be written there
        assert is_claimed(path)
        with claimed(path) as other:
            assert other is None
    assert not path.exists()


@pytest.mark.usefixtures("anothers")
def test_a_claim_that_another_user_holds_is_respected(
    path: Path, holder: subprocess.Popen[str]
) -> None:
    sweep(path.parent)
    assert path.exists()
    with claimed(path) as report:
        assert report is None
    holder.kill()
    holder.wait()
    sweep(path.parent)
    assert not path.exists()


@pytest.mark.usefixtures("anothers")
def test_a_claim_that_can_t_be_removed_is_stepped_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder where each removes his own."""

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    path.parent.mkdir()
    path.touch()
    monkeypatch.setattr(Path, "unlink", refuse)
    sweep(path.parent)
    for _ in range(2):
        with folder_claimed(path.parent.parent), claimed(path) as report:
            assert report is not None
        assert is_abandoned(path)


@pytest.mark.usefixtures("anothers")
def test_a_claim_that_another_user_holds_on_nfs_is_respected(
    path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which has no lock of one's own for a file that may only be read, but one to share."""
    real = fcntl.flock

    def refuse(file: int, how: int) -> None:
        if how & fcntl.LOCK_EX:
            raise OSError(9, "Bad file descriptor")
        real(file, how)

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setattr("bench.grid.claims.POLL_SECONDS", 0.01)
    with claimed(path) as report:
        assert report is None
    killing = threading.Timer(0.1, holder.kill)
    killing.start()
    with claimed(path, wait=True) as report:
        assert report is not None
        assert not killing.is_alive()
    assert not path.exists()


def test_a_folder_in_which_no_claim_can_be_made_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no reason to try for ever."""
    real, tries = os.open, iter(range(4))

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            next(tries)
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match="Permission denied"), claimed(path):
        pass


def test_who_waits_gets_a_claim_that_others_see(path: Path) -> None:
    """Its holder removes the file: a lock on what was removed would be nobody's."""
    got, seen = threading.Event(), []

    def wait() -> None:
        with claimed(path, wait=True) as report:
            seen.append((report is not None, is_claimed(path)))
            got.set()

    with claimed(path):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.2)
    thread.join(10)
    assert seen == [(True, True)]


def test_the_share_that_is_done_can_be_read(path: Path) -> None:
    with claimed(path) as report:
        assert report is not None
        assert float(path.read_text()) == 0
        report(0.25)  # too soon after the first
        assert float(path.read_text()) == 0


def test_a_file_system_without_locks_is_used_without(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with claimed(path) as report:
        assert report is not None
        assert not is_claimed(path)
    assert not path.exists()
