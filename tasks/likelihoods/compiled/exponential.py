"""The exponential of many numbers: a few instructions for as many as the machine takes at once.

    eˣ = 2ᵏ Σ_j rʲ/j!,   k = round(x / ln 2),   r = x − k ln 2

The library's is a call for each number, within a compiled loop.
"""

import math
from typing import NamedTuple

import numpy as np

from tasks.likelihoods.compiled.loops import loops


class Constants(NamedTuple):
    """Those of a type of numbers."""

    largest: np.floating
    """|x| beyond it is taken as this."""
    per_ln2: np.floating
    ln2: np.floating
    """Its first digits, so few that k times it is exact."""
    ln2_rest: np.floating
    bias: np.floating
    """2ᵏ has the bits of the whole number (k + bias) unit."""
    unit: np.floating
    whole: np.integer
    """Zero, as a whole number of as many bits."""

    @classmethod
    def of(cls, number: type[np.floating], whole: type[np.integer], digits: int) -> "Constants":
        """For a type of numbers, with so many binary digits of ln 2 in its first part."""
        kind, ln2 = np.finfo(number), math.log(2)
        first = round(ln2 * 2**digits) / 2**digits
        return cls(
            largest=number(-kind.minexp * ln2),
            per_ln2=number(1 / ln2),
            ln2=number(first),
            ln2_rest=number(ln2 - first),
            bias=number(kind.maxexp - 1),
            unit=number(2**kind.nmant),
            whole=whole(0),
        )


Series = tuple[np.floating, ...]
"""1/j! with the last j first; as many as |r| ≤ ln 2 / 2 asks for."""


def series(number: type[np.floating], order: int) -> Series:
    return tuple(number(1 / math.factorial(j)) for j in range(order, -1, -1))


CONSTANTS = {
    "float32": (Constants.of(np.float32, np.int32, digits=9), series(np.float32, order=7)),
    "float64": (Constants.of(np.float64, np.int64, digits=32), series(np.float64, order=13)),
}
"""By type of numbers."""


@loops()
def exponentials(
    x: np.ndarray, less: np.floating, constants: Constants, series: Series, bits: np.ndarray
) -> np.floating:
    """Put exp(x − less) in the place of each x; their sum.

    Args:
        x: (L,), which are overwritten.
        constants, series: those of x's type, of `CONSTANTS`.
        bits: (L,) whole numbers of as many bits, which are overwritten.
    """
    powers = bits.view(x.dtype)
    largest = constants.largest
    for i in range(len(x)):
        y = x[i] - less
        y = -largest if y < -largest else y  # so that what is no number stays none
        y = largest if y > largest else y
        k = np.rint(y * constants.per_ln2)
        bits[i] = (k + constants.bias) * constants.unit
        r = (y - k * constants.ln2) - k * constants.ln2_rest
        value = series[0]
        for j in range(1, len(series)):
            value = value * r + series[j]
        x[i] = value
    total = x.dtype.type(0)
    for i in range(len(x)):
        x[i] *= powers[i]
        total += x[i]
    return total
