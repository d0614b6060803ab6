"""Small data sets in files, as the tests write them."""

import gzip
import pickle
from pathlib import Path

import h5py
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


def some_features(count: int, concepts: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, concepts + 2), largest at the place of their concept, and its name."""
    rng = np.random.default_rng(seed)
    concept = np.arange(count) % concepts
    features = rng.random((count, concepts + 2)).astype(np.float32)
    features[np.arange(count), concept] += 9
    return features, np.array([f"n{number:03}" for number in concept])


def write_features(folder: Path, concepts: int = 20) -> None:
    """400 vectors to train on and 100 to test, as npz files."""
    folder.mkdir(parents=True)
    for seed, (part, count) in enumerate({"train": 400, "test": 100}.items()):
        features, labels = some_features(count, concepts, seed)
        np.savez(folder / f"{part}.npz", features=features, labels=labels)


def write_published(folder: Path, features: np.ndarray, labels: object) -> None:
    """The two files that the published features come as, into a folder for a part."""
    folder.mkdir(parents=True)
    with h5py.File(folder / "ours_images_single_sm0.h5", "w") as file:
        file["dataset_1"] = features
    (folder / "ours_images_single_sm0.objects").write_bytes(pickle.dumps(labels))
