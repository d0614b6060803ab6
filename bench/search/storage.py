"""Where studies are kept: in a journal in the results folder, or in a database."""

import os
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from analysis.stored import JOURNAL
from analysis.texts import without_secrets
from bench.errors import StorageError, not_written
from bench.grid.claims import claimed

OPENINGS = 5
"""Tries to open a database whose tables another process is making."""


def open_storage(address: str | None, results: Path) -> BaseStorage:
    """The storage at an address, or the journal in the results folder.

    Raises:
        StorageError: it can't be reached or read.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if address is None:
        return JournalStorage(_Journal(results / JOURNAL))
    _check_address(address)
    for left in reversed(range(OPENINGS)):
        try:
            return _database(address)
        except Exception as error:  # SQLAlchemy's, that of a missing driver, the server's
            making = "already exists" in _reason(error) or isinstance(error, IntegrityError)
            if left == 0 or not making:
                raise StorageError(f"{_option(address)}: {_reason(error)}") from error
            time.sleep(1)  # another process is making its tables
    raise AssertionError


@contextmanager
def database_errors(address: str | None) -> Iterator[None]:
    """Tell in a line that a database has gone, or refuses something.

    Args:
        address: of the database; None where there is a journal, which tells by itself.
    Raises:
        StorageError: with what the database says.
    """
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        assert address is not None
        line = f"{_option(address)}: {_reason(error)}: mend that, and run the same command"
        raise StorageError(line) from error


class _Journal(JournalFileBackend):
    """Optuna's, which survives those who write to it, and tells in a line what is wrong."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _JournalLock(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError as error:
            raise not_written(str(self._path), error) from error

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        try:
            for log in super().read_logs(log_number_from):
                if not isinstance(log, dict) or "op_code" not in log:
                    raise ValueError("a line that is none of a journal")
                yield log
        except (ValueError, RecursionError) as error:
            raise StorageError(f"{self._path} is damaged: give another --out") from error


class _JournalLock(JournalFileOpenLock):
    """Held while lines are added to a journal; the system frees it with the process that has it.

    Optuna's own locks are files that a killed process leaves: others wait half a minute for it, or
    for ever, for its default, where the journal's path is relative.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal
        self._held = ExitStack()

    def acquire(self) -> bool:
        with ExitStack() as held:
            held.enter_context(claimed(self._journal.with_suffix(".lock"), wait=True))
            _cut_half_line(self._journal)
            self._held = held.pop_all()
        return True

    def release(self) -> None:
        self._held.close()


def _cut_half_line(journal: Path) -> None:
    """Remove what a full disk or a dying process left of a line: nobody could read what follows."""
    with journal.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        if file.read() not in (b"", b"\n"):
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _database(address: str) -> RDBStorage:
    # For a lock on the whole file SQLite's driver waits five seconds, and then fails.
    waiting = {"timeout": 60} if address.startswith("sqlite") else {}
    return RDBStorage(address, engine_kwargs={"pool_pre_ping": True, "connect_args": waiting})


def _check_address(address: str) -> None:
    """Refuse a password with an @: what follows it would be the host, and be told of.

    Raises:
        StorageError: there is one.
    """
    with suppress(ArgumentError):  # which is told when it is opened
        if "@" in (make_url(address).host or ""):
            raise StorageError(f"{_option(address)}: an @ in a name or a password is %40")


def _option(address: str) -> str:
    """The option that named a database, without a password."""
    return f"--storage {without_secrets(address, whole=True)}"


def _reason(error: Exception) -> str:
    """What is wrong with a database, in a line."""
    return without_secrets(str(error.__cause__ or error).strip().splitlines()[0])
