"""The threads of a cell: in every library as many as it says, from its first step to its last."""

import re

import torch

_POOLS = re.compile(r"(at::get_num|omp_get_max|mkl_get_max)_threads\(\) : (\d+)")


class ThreadsError(Exception):
    """A library has other threads than the cell says: its times and bits would be another's."""


def use_threads(count: int) -> None:
    """Have torch, OpenMP and the library of products compute with so many threads."""
    torch.set_num_threads(count)


def check_threads(count: int) -> None:
    """Check that they do.

    Raises:
        ThreadsError: something has changed it since.
    """
    found = {
        name: int(threads) for name, threads in _POOLS.findall(torch.__config__.parallel_info())
    }
    wrong = [f"{name}_threads is {threads}" for name, threads in found.items() if threads != count]
    if wrong:
        raise ThreadsError(f"{', '.join(wrong)} in a cell of {count}: a library has changed it")
