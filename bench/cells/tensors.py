"""Tensors in files, which are written whole or not at all."""

import io
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from analysis.files import written_whole


def save(content: Any, path: Path) -> None:
    """Write tensors, in lists and dicts with plain values perhaps.

    Raises:
        OSError: they can't be written.
    """
    with written_whole(path) as file:
        buffer = io.BytesIO()  # torch makes a RuntimeError of a full disk
        torch.save(content, buffer)
        file.write(buffer.getbuffer())


def load(path: Path, device: str) -> Any:
    """What was saved; None where no such file is, or what is there can't be read."""
    try:
        return torch.load(path, map_location=device)
    except (OSError, EOFError, RuntimeError, UnpicklingError):
        return None
