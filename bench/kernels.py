"""The kernels that numbers are computed with, held to those of any x86-64 machine since 2013.

Libraries choose their kernels by what the processor has, and wider vectors add in another order.
`pin` is called when `bench` is imported, which is to come before torch and numba.
"""

import os
import platform
import sys
from functools import cache
from pathlib import Path

PINS = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",  # products, in torch
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",  # products, in numpy
    "NUMBA_CPU_NAME": "x86-64-v3",  # compiled loops
    "NUMBA_CPU_FEATURES": "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+f16c,+fma,+bmi,+bmi2",
}
"""Environment variables that hold libraries to AVX2. Those that the user has set stay as they are.

MKL_CBWR is not among them: with it the products are others than an AVX2 machine's own."""

CPUINFO = Path("/proc/cpuinfo")


def pin() -> None:
    """Pin the kernels of this process, and of those that it starts, where they can be."""
    if _pinnable() and (_named() or not {"torch", "numba"} & sys.modules.keys()):
        for name, value in PINS.items():
            os.environ.setdefault(name, value)


@cache
def kernels() -> str:
    """What rows must have in common for equal bits to be expected: the kernels of this process.

    Pinned they depend on the processor's maker alone, as MKL asks for it; else on the processor.
    """
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    maker = processor().get("vendor_id", platform.machine())
    if _named() and capability == "AVX2":
        return f"pinned to AVX2, {maker}"
    return ", ".join([capability, maker, *family()])


def processor() -> dict[str, str]:
    """What Linux says of the first core; empty elsewhere."""
    try:
        text = CPUINFO.read_text()
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def family() -> list[str]:
    """The processor's family and model, where they are known."""
    known = processor()
    return [f"{name} {known[name]}" for name in ("cpu family", "model") if name in known]


def _pinnable() -> bool:
    """Whether this processor has all that the pins name."""
    return {"avx2", "fma", "bmi1", "bmi2", "f16c"} <= {*processor().get("flags", "").split()}


def _named() -> bool:
    """Whether the environment names all pins, and no kernels of MKL's beside them."""
    held = all(os.environ.get(name) == value for name, value in PINS.items())
    return held and "MKL_CBWR" not in os.environ
