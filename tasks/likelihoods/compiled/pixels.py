"""The likelihood of pixels, a few at a time: `tasks.likelihoods.pixels` says what is computed.

Their logits stay in the nearest cache from the first product to the last; operations on whole
tensors write and read each of them some ten times.
"""

import math

import numpy as np
from numba import prange

from tasks.likelihoods.compiled.exponential import CONSTANTS, Constants, Series, exponentials
from tasks.likelihoods.compiled.loops import loops, use_threads_of_torch

PIXELS = 4
"""At a time: what they share is fetched once, and none of their sums waits for another."""


def pixel_nll(
    h: np.ndarray, affine: np.ndarray, target: np.ndarray, graded: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """−log softmax(A h)[x] of every pixel, and what its gradients need.

    Args:
        h: (N, P, F), with P a multiple of `PIXELS`.
        affine: Aᵀ, (F, L), of h's type.
        target: x, (N, P) int64, from 0 to L − 1.
        graded: whether to take the slopes, which are empty otherwise.
    Returns:
        (N, P); its slope for h, (N, P, F); its slope for Aᵀ, summed over pixels, (N, F, L).
    """
    count, pixels, size = h.shape
    slopes = count if graded else 0
    nll = np.empty((count, pixels), h.dtype)
    h_slope = np.empty((slopes, pixels, size), h.dtype)
    affine_slope = np.zeros((slopes, *affine.shape), h.dtype)
    use_threads_of_torch()
    _fill(h, affine, target, graded, *CONSTANTS[h.dtype.name], nll, h_slope, affine_slope)
    return nll, h_slope, affine_slope


@loops(parallel=True)
def _fill(
    h: np.ndarray,
    affine: np.ndarray,
    target: np.ndarray,
    graded: bool,
    constants: Constants,
    series: Series,
    nll: np.ndarray,
    h_slope: np.ndarray,
    affine_slope: np.ndarray,
) -> None:
    count, pixels = target.shape
    size, levels = affine.shape
    for i in prange(count):
        e = np.empty((PIXELS, levels), h.dtype)
        top, scale = np.empty(PIXELS, h.dtype), np.empty(PIXELS, h.dtype)
        bits = np.full(levels, constants.whole)
        for p in range(0, pixels, PIXELS):
            rows = h[i, p : p + PIXELS]
            _logits(rows, affine, e)
            _largest(e, top)
            for j in range(PIXELS):
                right = e[j, target[i, p + j]]
                total = exponentials(e[j], top[j], constants, series, bits)
                nll[i, p + j] = top[j] + math.log(total) - right
                scale[j] = 1 / total
            if graded:
                own = h_slope[i, p : p + PIXELS]
                _slopes(rows, affine, e, scale, own, affine_slope[i])
                for j in range(PIXELS):
                    x = target[i, p + j]
                    for f in range(size):
                        own[j, f] -= affine[f, x]
                        affine_slope[i, f, x] -= rows[j, f]


@loops()
def _logits(h: np.ndarray, affine: np.ndarray, e: np.ndarray) -> None:
    """A h of the pixels."""
    e0, e1, e2, e3 = e[0], e[1], e[2], e[3]
    e[:] = 0
    for f in range(len(affine)):
        h0, h1, h2, h3 = h[0, f], h[1, f], h[2, f], h[3, f]
        a = affine[f]
        for level in range(len(a)):
            e0[level] += h0 * a[level]
            e1[level] += h1 * a[level]
            e2[level] += h2 * a[level]
            e3[level] += h3 * a[level]


@loops(fastmath={"nnan", "nsz", "reassoc"})
def _largest(e: np.ndarray, top: np.ndarray) -> None:
    """The largest logit of each pixel; any of them where one is no number, as its sum is none."""
    e0, e1, e2, e3 = e[0], e[1], e[2], e[3]
    top0, top1, top2, top3 = e0[0], e1[0], e2[0], e3[0]
    for level in range(len(e0)):
        top0 = max(top0, e0[level])
        top1 = max(top1, e1[level])
        top2 = max(top2, e2[level])
        top3 = max(top3, e3[level])
    top[0], top[1], top[2], top[3] = top0, top1, top2, top3


@loops()
def _slopes(
    h: np.ndarray,
    affine: np.ndarray,
    e: np.ndarray,
    scale: np.ndarray,
    h_slope: np.ndarray,
    affine_slope: np.ndarray,
) -> None:
    """Aᵀe of each pixel, and e hᵀ added up over them, with e scaled to probabilities."""
    e0, e1, e2, e3 = e[0], e[1], e[2], e[3]
    for f in range(len(affine)):
        a, own = affine[f], affine_slope[f]
        h0, h1 = h[0, f] * scale[0], h[1, f] * scale[1]
        h2, h3 = h[2, f] * scale[2], h[3, f] * scale[3]
        s0 = s1 = s2 = s3 = e.dtype.type(0)
        for level in range(len(a)):
            s0 += a[level] * e0[level]
            s1 += a[level] * e1[level]
            s2 += a[level] * e2[level]
            s3 += a[level] * e3[level]
            own[level] += h0 * e0[level] + h1 * e1[level] + h2 * e2[level] + h3 * e3[level]
        h_slope[0, f], h_slope[1, f] = s0 * scale[0], s1 * scale[1]
        h_slope[2, f], h_slope[3, f] = s2 * scale[2], s3 * scale[3]
