"""Data sets in memory: rows of inputs with a class label each, images or features of images."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

NOTHING: Final = "none"
"""The data set of a task that needs none."""

QUOTED = 200
"""Letters of another's message that are told, at most."""


class DataError(Exception):
    """A data set that is missing, damaged or unsuitable; the message says what to do."""


def one_line(error: Exception) -> str:
    """What a library says of a file, as a short line: the file's own content may be in it."""
    text = " ".join(str(error).split())
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if len(printable) <= QUOTED else f"{printable[:QUOTED]} …"


class Part(NamedTuple):
    """One split."""

    inputs: UInt8[Tensor, "N P"] | Float[Tensor, "N P"]
    """Pixels, or features."""
    labels: Int64[Tensor, " N"]


@dataclass(frozen=True)
class Dataset:
    """Vectors of length P with a class label each, on the CPU."""

    name: str
    inputs: UInt8[Tensor, "N P"] | Float32[Tensor, "N P"]
    labels: Int64[Tensor, " N"]
    test_inputs: UInt8[Tensor, "T P"] | Float32[Tensor, "T P"]
    test_labels: Int64[Tensor, " T"]

    @property
    def size(self) -> int:
        """P, the number of pixels or of features."""
        return self.inputs.shape[1]

    @cached_property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    def split(self, validation: int, seed: int) -> dict[str, Part]:
        """Train, validation and test; the first two are a shuffle of the training images.

        Raises:
            DataError: no image would be left to train on, or there is none to test on.
        """
        if not len(self.test_inputs):
            raise DataError(f"{self.name} has no test images: put some into its test files")
        kept = len(self.inputs) - validation
        if kept < 1:
            raise DataError(
                f"{self.name} has {len(self.inputs)} training images: {validation} for validation "
                "leave none; lower the task's setting validation"
            )
        order = torch.randperm(len(self.inputs), generator=torch.Generator().manual_seed(seed))
        return {
            "train": Part(self.inputs[order[:kept]], self.labels[order[:kept]]),
            "validation": Part(self.inputs[order[kept:]], self.labels[order[kept:]]),
            "test": Part(self.test_inputs, self.test_labels),
        }

    @cached_property
    def digest(self) -> str:
        """A hash of the content, which tells two data sets of one name apart."""
        content = hashlib.sha256()
        for part in (self.inputs, self.labels, self.test_inputs, self.test_labels):
            content.update(part.numpy().data)
        return content.hexdigest()[:16]


@dataclass(frozen=True)
class Images(Dataset):
    """Grey images in rows of P pixels: inputs are uint8 with values 0 to levels − 1."""

    levels: int
    shape: tuple[int, int]
    """Height and width, whose product is P."""


@dataclass(frozen=True)
class Features(Dataset):
    """What a trained network makes of images: inputs are float32.

    They have neither grey levels nor a place in a picture. A label is what the image shows.
    """
