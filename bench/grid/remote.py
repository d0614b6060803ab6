"""Cells on the workers of a Dask cluster, which need no folder in common with this machine."""

import logging
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from analysis.files import written_whole
from bench.cells.cell import Cell
from bench.cells.examples import examples_path
from bench.errors import UserError
from bench.grid.claims import Report
from bench.grid.runner import NOT_BEGUN, Clock, Execution, Outcome, failure, run_cell, store_outcome
from bench.results.store import cell_path

try:
    from distributed import Client, KilledWorker, get_worker
    from distributed.comm.addressing import get_address_host_port
except ImportError as error:
    raise UserError(
        "--executor dask needs Dask: pip install 'discrete-gradients-bench[dask]'"
    ) from error

CONNECT_SECONDS = 10
"""How long to try to reach a scheduler."""

Files = dict[str, bytes]
"""What is in files, by their paths in a results folder."""


def check_address(address: str) -> None:
    """Refuse what is no address: a client would try to reach it, and hang when it gives up.

    Raises:
        UserError: with what is wrong.
    """
    try:
        get_address_host_port(address)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--scheduler {address}: {reason}: give one as tcp://HOST:8786") from error


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of the scheduler at an address.

    Raises:
        UserError: it can't be reached, or its workers lack the benchmark.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # we tell what matters
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] or "no answer"
        raise UserError(f"--scheduler {address}: {reason}") from error
    with client:
        try:
            client.run(_ready)
        except ImportError as error:
            raise UserError(
                f"--scheduler {address}: its workers lack the benchmark: install it there ({error})"
            ) from error
        if not client.nthreads():
            print(f"--scheduler {address} has no workers yet: waiting for one", file=sys.stderr)
        yield client


def run_remotely(
    client: Client, cell: Cell, execution: Execution, beside: int | None, *, report: Report
) -> Outcome:
    """Run a cell on a worker of the cluster and store here what comes back.

    Raises:
        UserError: the scheduler is gone, or the outcome can't be stored.
    """
    clock = Clock()
    future = client.submit(run_away, cell, execution, pure=False)
    try:
        outcome, files = future.result(timeout=_patience(execution))
    except TimeoutError:  # it waits for a worker
        future.cancel()
        return Outcome(cell, "timeout", NOT_BEGUN)
    except CancelledError as error:
        raise UserError(
            f"--scheduler {execution.scheduler}: it is gone: run the same command to go on"
        ) from error
    except KilledWorker:
        reason = "its workers were killed, for want of memory perhaps: see to that, and run again"
        outcome = Outcome(cell, "failed", reason)
        store_outcome(outcome, [], execution, beside, clock)
    except Exception as error:
        outcome = failure(cell, error, execution.limits)
        store_outcome(outcome, [], execution, beside, clock)
    else:
        for name, content in files.items():
            with written_whole(execution.results / name) as file:
                file.write(content)
    return outcome


def run_away(cell: Cell, execution: Execution) -> tuple[Outcome, Files]:
    """On a worker of the cluster: run a cell in the worker's own folder.

    Returns:
        What became of it, and the files that are to be stored, its rows last.
    """
    results = Path(get_worker().local_directory) / "results"
    outcome = run_cell(cell, replace(execution, results=results), None)
    files = {}
    for path in (examples_path(results, cell), cell_path(results, cell)):
        if path.exists():
            files[str(path.relative_to(results))] = path.read_bytes()
            path.unlink()
    return outcome, files


def _ready() -> None:
    """Something for a worker to import."""


def _patience(execution: Execution) -> float | None:
    """How long to wait for a cell, seconds: where there is no worker nobody keeps the time."""
    limits = execution.limits
    return None if limits.ends is None else max(0, limits.ends - time.time()) + limits.grace
