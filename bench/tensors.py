"""Tensors in files, which are written whole or not at all."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from analysis.files import written_whole


def save(content: Any, path: Path) -> None:
    """Write tensors, in lists and dicts with plain values perhaps."""
    with written_whole(path) as file:
        torch.save(content, file)


def load(path: Path, device: str) -> Any:
    """What was saved; None where no such file is, or what is there can't be read."""
    try:
        return torch.load(path, map_location=device)
    except (OSError, EOFError, RuntimeError, UnpicklingError):
        return None
