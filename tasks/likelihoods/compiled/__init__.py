"""Loops that numba compiles, on the CPU, for what takes whole-tensor operations many passes."""

import importlib
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from estimators.mappings.kept import cache_of

DTYPES = (torch.float32, torch.float64)
"""Types of numbers that the loops are compiled for."""


def compiled(name: str, *tensors: Tensor) -> ModuleType | None:
    """A module of this folder; None where its loops don't take these tensors, or can't be had."""
    taken = all(t.device.type == "cpu" and t.dtype in DTYPES for t in tensors)
    return _imported(name) if taken else None


def cache_of_loops() -> Path | None:
    """Where the loops are kept; None, and one warning in all processes, where they can't be."""
    return cache_of(Path(__file__).parent.glob("*.py"))


@cache
def _imported(name: str) -> ModuleType | None:
    """The module, or None and a warning where numba is not installed."""
    try:
        return importlib.import_module(f"tasks.likelihoods.compiled.{name}")
    except ImportError:
        warnings.warn(
            f"numba is not installed: what {__name__}.{name} does in loops takes two to "
            "four times as long in whole-tensor operations (pip install numba)",
            stacklevel=3,
        )
        return None
