"""Where a number came from: commit, versions, machine."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bench.kernels import family, kernels, processor

_ROOT = Path(__file__).resolve().parents[2]

CODE = ("run_bench.py", "bench", "tasks", "estimators", "analysis")
"""What makes a checkout dirty if it was changed or added to: results and notes don't."""

PACKAGES = ("numpy", "scipy", "scikit-learn", "entmax", "pandas", "pyarrow")
"""What numbers or files depend on, beside what has a column of its own."""


@cache
def provenance() -> dict[str, str | bool | None]:
    """Columns of the results table that are the same for all rows of a process."""
    ours = _git("ls-files", "--", "run_bench.py")  # else it is the checkout of another project
    status = _git("status", "--porcelain", "--", *CODE) if ours else None
    return {
        "commit": _git("rev-parse", "HEAD") if ours else None,
        "dirty": None if status is None else bool(status),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": _version("numba"),
        "packages": json.dumps({name: _version(name) for name in PACKAGES}),
        "machine": ", ".join(
            [platform.system(), _processor(), *family(), f"{os.cpu_count()} cores"]
        ),
        "kernels": kernels(),
    }


def environment() -> dict[str, Any]:
    """What `run_bench.py env` shows: the provenance of a row that is written now, and what this
    machine has; None where that can't be known."""
    columns = provenance()
    gpus = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    return {
        "commit": columns["commit"],
        "dirty": columns["dirty"],
        **{name: columns[name] for name in ("python", "torch", "numba")},
        **json.loads(str(columns["packages"])),
        "system": platform.platform(),
        "cpu": _processor(),
        "kernels": columns["kernels"],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "gpus": gpus,
    }


@cache
def code_of(*classes: type) -> str:
    """A hash of the files of classes and of what they inherit from, as they are at the first call,
    and of torch's version."""
    modules = {base.__module__ for one in classes for base in one.__mro__}
    files = {getattr(sys.modules.get(name), "__file__", None) for name in modules}
    content = hashlib.sha256(torch.__version__.encode())
    for path in sorted(Path(file) for file in files if file is not None):
        content.update(path.read_bytes() if path.is_file() else b"")
    return content.hexdigest()[:16]


def device_name(device: str) -> str:
    """What a device is called: the GPU's name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _version(package: str) -> str | None:
    """The version of an installed package; None where it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git says of this checkout; None where there is no git or no checkout."""
    ours = ["-c", "safe.directory=*"]  # whoever it belongs to: it is the code that runs
    try:
        done = subprocess.run(
            ["git", *ours, *arguments], cwd=_ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    """The CPU's name, as Linux gives it; the platform's word elsewhere."""
    named = processor().get("model name")
    return named or platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    """The machine's memory, where the system tells."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Windows has none of these
        return None
