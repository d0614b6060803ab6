"""What numba compiles: where it is kept, and what takes its place where it can't be had."""

import hashlib
import importlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

TOLD = "BENCH_TOLD_NOT_KEPT"
"""The environment variable that says, to processes that this one starts too, who need not warn."""

_ROOM = 2**20
"""Bytes, more than the loops of a folder take."""


@cache
def compiled_loops(module: str) -> ModuleType | None:
    """A module of compiled loops, or None and a warning where they can't be had."""
    try:
        return importlib.import_module(module)
    except ImportError:
        warnings.warn(
            f"numba is not installed: {module} in whole-tensor operations takes several times as "
            "long on the CPU (pip install numba)",
            stacklevel=2,
        )
        return None


def loops_of(source: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator of functions in a source file, which numba compiles and keeps.

    Args:
        source: `__file__` of the module.
        options: of numba's `njit`.
    """
    from numba import njit

    folder = cache_of([Path(source)])
    return lambda function: kept(njit(function, **options), folder)


def cache_of(sources: Iterable[Path]) -> Path | None:
    """Where loops of source files are kept: elsewhere for every other content of these.

    numba looks at a loop's own file alone, and would go on with what it had compiled of the others.
    The folder is in that of NUMBA_CACHE_DIR, beside the sources, or where numba keeps a user's.

    Returns:
        A folder; None, and one warning in all processes, where none can be written to.
    """
    files = sorted(sources)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    for base in _bases(files[0].parent):
        if _takes_files(base / digest):
            return base / digest
    if TOLD not in os.environ:
        os.environ[TOLD] = "1"
        warnings.warn(
            "what numba compiles can't be kept, and every process takes some ten seconds to "
            "compile it: name a folder that can be written to with NUMBA_CACHE_DIR",
            stacklevel=2,
        )
    return None


def kept(loop: Any, folder: Path | None) -> Any:
    """A loop of numba's that keeps in a folder what it compiles, or, where there is none, does
    not."""
    from numba import config

    if folder is not None:
        elsewhere, config.CACHE_DIR = config.CACHE_DIR, str(folder)  # type: ignore[attr-defined]
        try:
            loop.enable_caching()
        finally:
            config.CACHE_DIR = elsewhere  # type: ignore[attr-defined]
    return loop


def _bases(sources: Path) -> Iterator[Path]:
    """Folders that may hold what is kept, the best first."""
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(named).expanduser()
    yield sources / "__pycache__"
    with suppress(ImportError):  # without numba nothing is compiled
        from numba.misc.appdirs import AppDirs  # which a process that runs no loop does without

        yield Path(AppDirs("numba", appauthor=False).user_cache_dir)


def _takes_files(folder: Path) -> bool:
    """Whether a folder is there, or can be made, and can be written to.

    It must have room if nothing is in it yet: numba does not expect a full disk.
    """
    room = 0 if any(folder.glob("*/*.nbi")) else _ROOM
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(room))
    except OSError:
        return False
    return True
