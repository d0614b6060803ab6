"""Small data sets in files, as the tests write them."""

import gzip
from pathlib import Path

import numpy as np

SIZES = {"train": 30, "t10k": 10}


def write_idx(path: Path, array: np.ndarray, *, zipped: bool = True) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    content = header + array.tobytes()
    if zipped:
        path = path.with_name(f"{path.name}.gz")
        content = gzip.compress(content)
    path.write_bytes(content)


def write_images(folder: Path, *, zip_tests: bool = True) -> None:
    """30 images of 28 × 28 to train on and 10 to test, in four files."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in SIZES.items():
        pixels = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        zipped = zip_tests or part == "train"
        write_idx(folder / f"{part}-images-idx3-ubyte", pixels, zipped=zipped)
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
