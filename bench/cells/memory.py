"""How a process that trains holds its memory."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of malloc.h


def keep_memory() -> None:
    """Have glibc keep what is freed for the next step, where there is a glibc.

    By default it gives large tensors back to the system after each step, and every page of the next
    one's has to be asked for again, which on a virtual machine can take longer than computing them.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another system, another allocator
        return
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**26)
    mallopt(_MMAP_THRESHOLD, 2**25)  # the most that it takes
