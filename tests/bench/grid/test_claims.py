"""One holder at a time, whatever becomes of it."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.grid.claims import claimed, is_abandoned, is_claimed, sweep
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
