"""⟨v, σ(x w)⟩ of many numbers x: `tasks.likelihoods.pointwise` says what it is.

The hidden units of a number stay in the nearest cache, forward and backward.
"""

import numpy as np
from numba import prange

from tasks.likelihoods.compiled.exponential import CONSTANTS, Constants, Series, exponentials
from tasks.likelihoods.compiled.loops import loops, use_threads_of_torch

TOGETHER = 512
"""Numbers whose slopes for w and v one thread adds up: what is added to what does not depend on
how many threads there are."""


def forward(x: np.ndarray, w: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(N,), for x (N,), w and v (H,)."""
    y = np.empty_like(x)
    use_threads_of_torch()
    _forward(x, w, v, *CONSTANTS[x.dtype.name], y)
    return y


def backward(
    x: np.ndarray, w: np.ndarray, v: np.ndarray, slope: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The slopes for x, w and v, given that for the result, (N,)."""
    groups = -(-len(x) // TOGETHER)
    x_slope = np.empty_like(x)
    w_slope, v_slope = np.zeros((groups, len(w)), x.dtype), np.zeros((groups, len(w)), x.dtype)
    use_threads_of_torch()
    _backward(x, w, v, slope, *CONSTANTS[x.dtype.name], x_slope, w_slope, v_slope)
    return x_slope, w_slope.sum(axis=0) * v, v_slope.sum(axis=0)


@loops(parallel=True)
def _forward(
    x: np.ndarray, w: np.ndarray, v: np.ndarray, constants: Constants, series: Series, y: np.ndarray
) -> None:
    for group in prange(-(-len(x) // TOGETHER)):
        h, bits = np.empty(len(w), x.dtype), np.full(len(w), constants.whole)
        for i in range(group * TOGETHER, min((group + 1) * TOGETHER, len(x))):
            _hidden(x[i], w, h, constants, series, bits)
            total = x.dtype.type(0)
            for j in range(len(w)):
                total += v[j] * h[j]
            y[i] = total


@loops(parallel=True)
def _backward(
    x: np.ndarray,
    w: np.ndarray,
    v: np.ndarray,
    slope: np.ndarray,
    constants: Constants,
    series: Series,
    x_slope: np.ndarray,
    w_slope: np.ndarray,
    v_slope: np.ndarray,
) -> None:
    """As in `pointwise`, with each group's sums for w, without v's factor, and for v."""
    through = v * w
    for group in prange(len(w_slope)):
        h, bits = np.empty(len(w), x.dtype), np.full(len(w), constants.whole)
        for_w, for_v = w_slope[group], v_slope[group]
        for i in range(group * TOGETHER, min((group + 1) * TOGETHER, len(x))):
            _hidden(x[i], w, h, constants, series, bits)
            own, both = slope[i], slope[i] * x[i]
            total = x.dtype.type(0)
            for j in range(len(w)):
                d = h[j] - h[j] * h[j]
                total += through[j] * d
                for_w[j] += both * d
                for_v[j] += own * h[j]
            x_slope[i] = own * total


@loops()
def _hidden(
    x: np.floating,
    w: np.ndarray,
    h: np.ndarray,
    constants: Constants,
    series: Series,
    bits: np.ndarray,
) -> None:
    """h = σ(x w)."""
    one = h.dtype.type(1)
    for j in range(len(w)):
        h[j] = -x * w[j]
    exponentials(h, h.dtype.type(0), constants, series, bits)
    for j in range(len(w)):
        h[j] = one / (one + h[j])
