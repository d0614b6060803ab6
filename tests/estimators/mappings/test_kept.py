"""Where what numba compiles is kept, and that it runs where nothing can be."""

import resource
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from numba import config, njit

from estimators.mappings.kept import TOLD, cache_of, kept


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sources that numba can keep nothing beside, with no home either."""
    for name in ("NUMBA_CACHE_DIR", TOLD):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "loop.py").write_text("x = 1\n")
    (folder / "__pycache__").write_text("a file, where root too can make no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "loop.py"))
    return folder


@contextmanager
def full_disk() -> Iterator[None]:
    """Files may not grow beyond 4 KiB, which is an error of the same kind."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heed = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heed)


def twice(number: int) -> int:
    return 2 * number


def test_where_nothing_can_be_written_it_compiles_and_one_process_warns(sources: Path) -> None:
    with pytest.warns(UserWarning, match="can't be kept.*NUMBA_CACHE_DIR") as told:
        assert cache_of(sources.glob("*.py")) is None
    assert len(told) == 1
    with warnings.catch_warnings():  # in the processes that inherit the variable either
        warnings.simplefilter("error")
        assert cache_of(sources.glob("*.py")) is None
    loop = kept(njit(twice), None)
    assert loop(21) == 42
    assert loop.stats.cache_path is None


def test_the_named_folder_comes_first_then_the_sources_then_the_users(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def base() -> Path | None:
        found = cache_of(sources.glob("*.py"))
        return found and found.parent

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert base() == tmp_path / "home" / "numba"
    (sources / "__pycache__").unlink()
    assert base() == sources / "__pycache__"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "named"))
    assert base() == tmp_path / "named"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(sources / "loop.py"))
    assert base() == sources / "__pycache__"


def test_a_loop_is_kept_in_its_folder_and_others_where_they_were(tmp_path: Path) -> None:
    before = config.CACHE_DIR
    loop = kept(njit(twice), tmp_path)
    assert loop(21) == 42
    assert [*tmp_path.glob("*/test_kept.twice-*.nbc")]
    assert before == config.CACHE_DIR


def test_a_full_disk_keeps_nothing_new_and_gives_what_is_there(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As numba would fail where it has compiled and can't write."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "named"))
    with full_disk(), pytest.warns(UserWarning, match="can't be kept"):
        assert cache_of(sources.glob("*.py")) is None
    folder = cache_of(sources.glob("*.py"))
    assert folder is not None
    kept(njit(twice), folder)(21)
    with full_disk():
        assert cache_of(sources.glob("*.py")) == folder
