"""How loops are compiled, and how many threads share them."""

from functools import partial

import torch
from numba import config, njit, set_num_threads

loops = partial(njit, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
"""Decorator. Sums may be taken in any order: only so can entries be taken side by side."""


def use_threads_of_torch() -> None:
    """Let parallel loops have as many threads as torch's operations, whose pool they share where
    both have GNU's OpenMP."""
    most = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    set_num_threads(min(torch.get_num_threads(), most))
