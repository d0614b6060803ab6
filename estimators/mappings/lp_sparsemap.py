"""The reference solver, lp-sparsemap, which has wheels for Python 3.8 and 3.9 only.

Where `import lpsmap` works it runs in this process, else in a worker under the interpreter that
the environment variable LP_SPARSEMAP_PYTHON names (`make lp-sparsemap` makes one).
"""

import importlib.util
import io
import os
import subprocess
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from estimators.mappings import lp_sparsemap_worker

VARIABLE = "LP_SPARSEMAP_PYTHON"


def available() -> bool:
    """Whether the reference solver can be run."""
    return importlib.util.find_spec("lpsmap") is not None or bool(os.environ.get(VARIABLE))


def solve(scores: Float[np.ndarray, "B D"], budget: int | None = None) -> dict[str, np.ndarray]:
    """Reference solutions of a batch; `lp_sparsemap_worker` says what is returned.

    Raises:
        RuntimeError: lp-sparsemap is not there, or the worker failed.
    """
    limit = -1 if budget is None else budget
    if importlib.util.find_spec("lpsmap") is not None:
        return lp_sparsemap_worker.solve(scores, limit)
    return _asked(scores=scores, budget=limit)


def best_chains(
    scores: Float[np.ndarray, "B P"], length: int, states: int
) -> dict[str, np.ndarray]:
    """The reference's best chain of each row; `lp_sparsemap_worker` says what is returned.

    Raises:
        RuntimeError: lp-sparsemap is not there, or the worker failed.
    """
    if importlib.util.find_spec("lpsmap") is not None:
        return lp_sparsemap_worker.best_chains(scores, length, states)
    return _asked(scores=scores, length=length, states=states)


def _asked(**parts: np.ndarray | int) -> dict[str, np.ndarray]:
    """What the worker answers to a problem of these parts."""
    python = os.environ.get(VARIABLE)
    if not python:
        raise RuntimeError(
            "lp-sparsemap is not installed: run `make lp-sparsemap`, which needs a Python 3.8 or "
            f"3.9, and set {VARIABLE} to the interpreter that it names"
        )
    problem = io.BytesIO()
    np.savez(problem, **parts)  # type: ignore[arg-type]
    command = [python, "-W", "ignore", str(Path(lp_sparsemap_worker.__file__))]
    try:
        done = subprocess.run(command, input=problem.getvalue(), capture_output=True, check=True)
    except OSError as error:
        raise RuntimeError(f"{VARIABLE}={python} can't be run: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode().strip().splitlines()[-1:]
        raise RuntimeError(f"the lp-sparsemap worker failed: {' '.join(last)}") from error
    with np.load(io.BytesIO(done.stdout)) as answer:
        return dict(answer)


def reference_solution(
    scores: Float64[Tensor, "B D"],
) -> tuple[Float64[Tensor, "B M D"], Float64[Tensor, "B M"]]:
    """Vertices and weights of the reference for bits.

    Raises:
        RuntimeError: lp-sparsemap is not there.
    """
    answer = solve(scores.cpu().numpy())
    return tuple(  # type: ignore[return-value]
        torch.from_numpy(answer[name]).to(scores) for name in ("vertices", "probabilities")
    )
