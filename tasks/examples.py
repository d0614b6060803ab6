"""What a task shows of a trained model: small arrays, each of a kind that there is a figure for.

A task makes its examples with the functions below; whoever stores or draws them knows the kinds
and no task. Images are given as pixels in [0, 1], and kept as bytes.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Kind = Literal["images", "pairs", "histogram", "bits", "trees"]
Array = np.ndarray[Any, np.dtype[Any]]


class Likeliest(NamedTuple):
    """The M likeliest assignments of each of B rows under q, best first."""

    z: Shaped[Tensor, "B M *z"]
    """The first is the mode of q."""
    probability: Float[Tensor, "B M"]
    """Zero where a row has fewer."""
    support: Shaped[Tensor, " B"]
    """How many assignments have positive probability."""


Look = Callable[[Tensor, int], Likeliest]
"""From scores (B, …) and the most that is wanted, to what q makes of them."""


class Example(NamedTuple):
    """One thing to show."""

    kind: Kind
    """What the arrays are; the function of that name in this file says which there are."""
    title: str
    arrays: dict[str, Array]


def images(
    title: str, pixels: Float[Tensor, "R C H W"], labels: Sequence[str] | None = None
) -> Example:
    """Rows of images: "images" (R, C, H, W) bytes; "labels" (R,), texts that may be empty.

    Args:
        title: what they are.
        pixels: in [0, 1].
        labels: of the rows.
    """
    texts = [""] * len(pixels) if labels is None else list(labels)
    return Example("images", title, {"images": _bytes(pixels), "labels": np.array(texts)})


def pairs(
    title: str, original: Float[Tensor, "N H W"], reconstruction: Float[Tensor, "N H W"]
) -> Example:
    """Images over what became of them: "original" and "reconstruction" (N, H, W) bytes."""
    arrays = {"original": _bytes(original), "reconstruction": _bytes(reconstruction)}
    return Example("pairs", title, arrays)


def histogram(title: str, share: Float[Tensor, " K"]) -> Example:
    """How often each of K values comes: "share" (K,) float32."""
    return Example("histogram", title, {"share": share.float().cpu().numpy()})


def bits(
    title: str,
    original: Float[Tensor, "N H W"],
    likeliest: Likeliest,
    reconstruction: Float[Tensor, "N M H W"],
) -> Example:
    """Images with their likeliest bit-vectors, and what each of these is decoded to.

    "original" (N, H, W) and "reconstruction" (N, M, H, W) bytes, "bits" (N, M, D) bytes of 0 and 1,
    "probability" (N, M) float32, "support" (N,) float64.
    """
    arrays = {
        "original": _bytes(original),
        "reconstruction": _bytes(reconstruction),
        "bits": likeliest.z.byte().cpu().numpy(),
        "probability": likeliest.probability.float().cpu().numpy(),
        "support": likeliest.support.double().cpu().numpy(),
    }
    return Example("bits", title, arrays)


def trees(
    title: str, words: Sequence[Sequence[str]], likeliest: Likeliest, truth: Int[Tensor, "N T"]
) -> Example:
    """Sentences with their likeliest trees: "words" (N, T), texts that are empty past the end,
    "heads" (N, M, T) and "truth" (N, T) int16, a root's being itself, "probability" (N, M) float32.

    Args:
        title: what they are.
        words: of each of N sentences.
        likeliest: heads of the words.
        truth: the true ones, −1 past the end or where they are not known.
    """
    longest = truth.shape[1]
    arrays = {
        "words": np.array([[*row, *[""] * (longest - len(row))] for row in words]),
        "heads": likeliest.z.short().cpu().numpy(),
        "truth": truth.short().cpu().numpy(),
        "probability": likeliest.probability.float().cpu().numpy(),
    }
    return Example("trees", title, arrays)


def _bytes(pixels: Float[Tensor, "*some H W"]) -> Array:
    """Grey levels in [0, 1] as uint8."""
    return (pixels.clamp(0, 1) * 255).round().byte().cpu().numpy()
