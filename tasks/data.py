"""Images with labels: the bundled digits, and MNIST or Fashion-MNIST from idx files."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

DATASETS = ("digits", "fashion-mnist", "mnist")
BUNDLED = "digits"
_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class DataError(Exception):
    """A data set that is missing or damaged; the message says what to do."""


class Part(NamedTuple):
    """One split: pixels (N, P) uint8 and labels (N,) int64."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Images:
    """Grey images in rows of P pixels, with a class label each, on the CPU.

    `pixels` and `test_pixels` are uint8 (N, P) with values 0 to levels − 1; `labels` and
    `test_labels` are int64 (N,).
    """

    name: str
    levels: int
    pixels: Tensor
    labels: Tensor
    test_pixels: Tensor
    test_labels: Tensor

    @property
    def size(self) -> int:
        """P, the number of pixels."""
        return self.pixels.shape[1]

    @cached_property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    def split(self, validation: int, seed: int) -> dict[str, Part]:
        """Train, validation and test; the first two are a shuffle of the training images.

        Raises:
            DataError: no image would be left to train on.
        """
        kept = len(self.pixels) - validation
        if kept < 1:
            raise DataError(
                f"{self.name} has {len(self.pixels)} training images: {validation} for validation "
                "leave none; lower the task's setting validation"
            )
        order = torch.randperm(len(self.pixels), generator=torch.Generator().manual_seed(seed))
        return {
            "train": Part(self.pixels[order[:kept]], self.labels[order[:kept]]),
            "validation": Part(self.pixels[order[kept:]], self.labels[order[kept:]]),
            "test": Part(self.test_pixels, self.test_labels),
        }

    @cached_property
    def digest(self) -> str:
        """A hash of the content, which tells two data sets of one name apart."""
        parts = (self.pixels, self.labels, self.test_pixels, self.test_labels)
        content = b"".join(part.numpy().tobytes() for part in parts)
        return hashlib.sha256(content).hexdigest()[:16]


@cache
def load_images(name: str, data_dir: Path | None = None) -> Images:
    """A data set by name, kept in memory for the next call.

    Args:
        name: one of `DATASETS`.
        data_dir: folder that holds a folder `name` of idx files, gzipped or not; the bundled
            digits need none.
    Raises:
        DataError: a file is missing or damaged, or the name is unknown.
    """
    if name == BUNDLED:
        return _digits()
    if name not in DATASETS:
        raise DataError(f"no data set {name!r}; there are {', '.join(DATASETS)}")
    if data_dir is None:
        raise DataError(
            f"{name} is not bundled: put its idx files ({_IDX_FILES[0]}.gz and three more) into "
            f"FOLDER/{name} and pass --data-dir FOLDER, or use --dataset {BUNDLED}"
        )
    arrays = [_read_idx(data_dir / name, file) for file in _IDX_FILES]
    pixels, labels, test_pixels, test_labels = (torch.from_numpy(array) for array in arrays)
    for part in (Part(pixels, labels), Part(test_pixels, test_labels)):
        if len(part.pixels) != len(part.labels):
            raise DataError(
                f"{data_dir / name} has {len(part.pixels)} images for {len(part.labels)} labels: "
                "fetch all four files again"
            )
    return Images(
        name=name,
        levels=256,
        pixels=pixels.flatten(1),
        labels=labels.long(),
        test_pixels=test_pixels.flatten(1),
        test_labels=test_labels.long(),
    )


def _digits() -> Images:
    """The 1,797 handwritten digits that come with scikit-learn, 8 × 8 with 17 grey levels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.data))
    pixels = torch.from_numpy(bunch.data[order].astype(np.uint8))
    labels = torch.from_numpy(bunch.target[order].astype(np.int64))
    train = 1297
    return Images(BUNDLED, 17, pixels[:train], labels[:train], pixels[train:], labels[train:])


def _read_idx(folder: Path, file: str) -> np.ndarray:
    """An unsigned-byte array from an idx file: 4-byte magic, sizes as big-endian int32, bytes."""
    path = next((p for p in (folder / file, folder / f"{file}.gz") if p.is_file()), None)
    if path is None:
        raise DataError(
            f"{folder / file}.gz is missing: put the four idx files of {folder.name} there, or "
            f"use --dataset {BUNDLED}"
        )
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({error}): fetch it again") from error
    dimensions = 3 if "idx3" in file else 1
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{path} is no idx file of {dimensions}-d bytes: fetch it again")
    shape = np.frombuffer(content, ">i4", dimensions, offset=4)
    if len(content) - header != int(np.prod(shape)):
        raise DataError(
            f"{path} is damaged: {len(content) - header} bytes of data where its header says "
            f"{' × '.join(map(str, shape))}; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
