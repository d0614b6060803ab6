"""How loops are compiled, and how many threads share them."""

from collections.abc import Callable
from typing import Any

import torch
from numba import config, njit, set_num_threads

from estimators.mappings.kept import kept
from tasks.likelihoods.compiled import cache_of_loops

_CACHE = cache_of_loops()

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "reassoc"}}


def loops(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator, with options of numba's. Sums may be taken in any order: only so can entries be
    taken side by side."""
    compiling = njit(**_OPTIONS | options)

    def compiled(function: Callable[..., Any]) -> Any:
        return kept(compiling(function), _CACHE)

    return compiled


def use_threads_of_torch() -> None:
    """Let parallel loops have as many threads as torch's operations, whose pool they share where
    both have GNU's OpenMP."""
    most, threads = config.NUMBA_NUM_THREADS, torch.get_num_threads()  # type: ignore[attr-defined]
    set_num_threads(min(threads, most))
    if torch.get_num_threads() != threads:  # numba's pool began just now, with all cores for OpenMP
        torch.set_num_threads(threads)
