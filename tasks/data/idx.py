"""The idx files that MNIST and Fashion-MNIST come as."""

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from tasks.data.base import DataError, Images, one_line

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

DARK = 128
"""A set of images none of whose pixels reaches this has other grey levels, 0 and 1 say."""

_GZIP = b"\x1f\x8b"


def read_images(name: str, folder: Path) -> Images:
    """A data set from its four files.

    Args:
        name: what to call it.
        folder: where the files are, gzipped (and with .gz behind their names) or not.
    Raises:
        DataError: a file is missing, damaged or empty, or does not go with another.
    """
    arrays = [_read_idx(folder, file) for file in IDX_FILES]
    pixels, labels, test_pixels, test_labels = (torch.from_numpy(array) for array in arrays)
    for images, own in ((pixels, labels), (test_pixels, test_labels)):
        if len(images) != len(own):
            raise DataError(
                f"{folder} has {len(images)} images for {len(own)} labels: fetch all four files "
                "again"
            )
    if pixels.shape[1:] != test_pixels.shape[1:]:
        raise DataError(
            f"{folder / IDX_FILES[2]} has images of {_spelled(test_pixels.shape[1:])} pixels where "
            f"those of training have {_spelled(pixels.shape[1:])}: make them of one size"
        )
    for file, images in ((IDX_FILES[0], pixels), (IDX_FILES[2], test_pixels)):
        if (most := int(images.max())) < DARK:
            raise DataError(
                f"{folder / file} has no pixel above {most}, where 255 is white: bring its grey "
                "levels to 0 to 255"
            )
    height, width = pixels.shape[1:]
    return Images(
        name=name,
        inputs=pixels.flatten(1),
        labels=labels.long(),
        test_inputs=test_pixels.flatten(1),
        test_labels=test_labels.long(),
        levels=256,
        shape=(height, width),
    )


def unzipped(raw: bytes) -> bytes:
    """The content of a gzip archive; anything else as it is.

    Raises:
        ValueError: the archive is damaged.
    """
    if not raw.startswith(_GZIP):
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(str(error)) from error


def _read_idx(folder: Path, file: str) -> UInt8[np.ndarray, "..."]:
    """An unsigned-byte array from an idx file: 4-byte magic, sizes as big-endian int32, bytes."""
    path = next((p for p in (folder / f"{file}.gz", folder / file) if p.is_file()), None)
    if path is None:
        raise DataError(f"{folder / file}.gz is missing: {_what_to_do(folder, file)}")
    try:
        content = unzipped(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read ({one_line(error)}): fetch it again") from error
    dimensions = 3 if "idx3" in file else 1
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{path} is no idx file of {dimensions}-d bytes: fetch it again")
    shape = np.frombuffer(content, ">i4", dimensions, offset=4).tolist()
    if min(shape) < 1 or len(content) - header != math.prod(shape):
        raise DataError(
            f"{path} is damaged or empty: {len(content) - header} bytes of data where its header "
            f"says {_spelled(shape)}; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


def _what_to_do(folder: Path, file: str) -> str:
    """About a file that is not there, where it may be there under another name or beside."""
    dotted = file.replace("-idx", ".idx")
    for name in (dotted, f"{dotted}.gz"):
        if (folder / name).is_file():
            return f"rename {name}, and the others, with - in place of the first dot"
        if any((folder.parent / other).is_file() for other in (name, name.replace(".idx", "-idx"))):
            return f"--data-dir takes the folder above {folder.name}, and this one has the files"
    return (
        f"put the four idx files of {folder.name} there, or go without --data-dir and "
        "BENCH_DATA_DIR to have them fetched, or run --profile quick"
    )


def _spelled(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))
