"""Where studies are kept: what a dying process leaves of a journal, and databases not there."""

import resource
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from analysis.stored import JOURNAL
from bench.errors import StorageError
from bench.search.storage import open_storage

WRITER = """
import optuna, sys, time
from pathlib import Path
from bench.search import storage as study_storage
if sys.argv[1] == "dies":
    study_storage._cut_half_line = lambda journal: print("held", flush=True) or time.sleep(60)
storage = study_storage.open_storage(None, Path("results"))
print("ready", flush=True)
optuna.create_study(storage=storage, study_name=sys.argv[1])
"""


def names(folder: Path) -> set[str]:
    return {*optuna.get_all_study_names(open_storage(None, folder))}


def test_a_journal_whose_writer_is_killed_goes_on_at_once(tmp_path: Path) -> None:
    """By a relative path, as --out is by default."""
    results = tmp_path / "results"
    results.mkdir()

    def writer(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, name]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    dying = writer("dies")
    assert dying.stdout is not None
    assert dying.stdout.readline() == "held\n"
    waiting = writer("waits")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=1)
    dying.kill()
    dying.communicate()
    waiting.communicate(timeout=20)
    assert waiting.returncode == 0
    assert names(results) == {"waits"}
    assert [path.name for path in results.iterdir()] == [JOURNAL]


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_half_a_line_of_a_journal_is_cut_off(kept: int, tmp_path: Path) -> None:
    """As a full disk leaves it, or a machine without power."""
    for name in ("whole", "half"):
        optuna.create_study(storage=open_storage(None, tmp_path), study_name=name)
    journal = tmp_path / JOURNAL
    first, second = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(first + second[:kept])
    assert names(tmp_path) == {"whole"}
    reader = open_storage(None, tmp_path)
    optuna.create_study(storage=open_storage(None, tmp_path), study_name="after")
    assert journal.read_bytes().startswith(first)
    assert names(tmp_path) == {*optuna.get_all_study_names(reader)} == {"whole", "after"}


def test_a_full_disk_is_told_and_costs_nothing(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path)
    optuna.create_study(storage=storage, study_name="before")
    journal = tmp_path / JOURNAL
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 20, before[1]))
    try:
        with pytest.raises(StorageError) as raised:
            optuna.create_study(storage=storage, study_name="lost")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(raised.value) == (
        f"{journal} can't be stored: file too large: mend that, and run the same command"
    )
    optuna.create_study(storage=storage, study_name="after")
    assert names(tmp_path) == {"before", "after"}


@pytest.mark.parametrize("line", [b"\0" * 20, b'{"a": 1}', b"[]", b"3"])
def test_a_damaged_journal_is_told(tmp_path: Path, line: bytes) -> None:
    optuna.create_study(storage=open_storage(None, tmp_path), study_name="one")
    journal = tmp_path / JOURNAL
    journal.write_bytes(line + b"\n" + journal.read_bytes())
    with pytest.raises(StorageError, match=f"^{journal} is damaged: give another --out$"):
        open_storage(None, tmp_path)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nonsense", "nonsense: "),
        ("postgresql://me:secret@localhost:1/x", "localhost:1/x: "),
        ("postgresql://localhost:1/x?password=secret", "localhost:1/x?***: "),
        ("postgresql://me:a@secret@localhost:1/x", "an @ in a name or a password is %40"),
        ("sqlite:////nowhere/at/all.db", "unable to open database file"),
    ],
)
def test_a_storage_that_is_not_there(address: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as raised:
        open_storage(address, tmp_path)
    message = str(raised.value)
    assert words in message
    assert "secret" not in message
    assert "\n" not in message
