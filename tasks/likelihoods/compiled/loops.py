"""How loops are compiled, and how many threads share them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from numba import config, njit, set_num_threads


def cache_of(folder: Path) -> Path:
    """Where compiled loops of a folder are kept: elsewhere for every other content of its files.

    numba looks at a loop's own file alone, and would go on with what it had compiled of the others.
    """
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py"))))
    return folder / "__pycache__" / digest.hexdigest()[:16]


_CACHE = str(cache_of(Path(__file__).parent))

_OPTIONS: dict[str, Any] = {
    "cache": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"},
}  # fmt: skip


def loops(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator, with options of numba's. Sums may be taken in any order: only so can entries be
    taken side by side."""
    compiling = njit(**_OPTIONS | options)

    def compiled(function: Callable[..., Any]) -> Any:
        elsewhere, config.CACHE_DIR = config.CACHE_DIR, _CACHE  # type: ignore[attr-defined]
        try:
            return compiling(function)
        finally:
            config.CACHE_DIR = elsewhere  # type: ignore[attr-defined]

    return compiled


def use_threads_of_torch() -> None:
    """Let parallel loops have as many threads as torch's operations, whose pool they share where
    both have GNU's OpenMP."""
    most, threads = config.NUMBA_NUM_THREADS, torch.get_num_threads()  # type: ignore[attr-defined]
    set_num_threads(min(threads, most))
    if torch.get_num_threads() != threads:  # numba's pool began just now, with all cores for OpenMP
        torch.set_num_threads(threads)
