"""Features of images with a concept each, as published for the signalling game or as npz files.

    FOLDER/train.npz                               features (N, P) and labels (N,), or else
    FOLDER/train/ours_images_single_sm0.h5         one data set (N, P)
    FOLDER/train/ours_images_single_sm0.objects    a pickle of N labels

and the same for test. docs/DATA.md says where the published ones come from.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from tasks.data.base import DataError, Features, one_line
from tasks.data.pickled_labels import as_text, read_labels

PUBLISHED = "ours_images_single_sm0"
"""Stem of the published files: the layer before the softmax, one row for each image."""

_EXPONENT = 40
"""Rows whose largest feature is beyond 2 to the power of this, or of minus this, are scaled."""

Array = np.ndarray[Any, np.dtype[Any]]


def read_features(name: str, folder: Path) -> Features:
    """A data set from a folder; its concepts are numbered, shorter labels first, then by alphabet.

    So labels that are the numbers from 0 on keep them.

    Args:
        name: what to call it.
        folder: where the files are.
    Raises:
        DataError: a file is missing or damaged, or needs h5py, which is not installed.
    """
    vectors, labels = _read_part(folder, "train")
    test_vectors, test_labels = _read_part(folder, "test")
    if vectors.shape[1] != test_vectors.shape[1]:
        raise DataError(
            f"{folder} has {vectors.shape[1]} features of an image in train and "
            f"{test_vectors.shape[1]} in test: make both with the same network"
        )
    names = sorted({*labels, *test_labels}, key=lambda label: (len(label), label))
    concepts = {label: number for number, label in enumerate(names)}
    return Features(
        name=name,
        inputs=vectors,
        labels=torch.tensor([concepts[label] for label in labels]),
        test_inputs=test_vectors,
        test_labels=torch.tensor([concepts[label] for label in test_labels]),
    )


def _read_part(folder: Path, part: str) -> tuple[Float32[Tensor, "N P"], list[str]]:
    """Vectors and their labels."""
    path, published = folder / f"{part}.npz", folder / part / f"{PUBLISHED}.h5"
    if path.is_file():
        features, labels = _read_npz(path)
    elif published.is_file():
        path = published
        features, labels = _read_h5(path), _read_objects(path.with_suffix(".objects"))
    else:
        raise DataError(
            f"{folder} has neither {part}.npz nor {published.relative_to(folder)}: docs/DATA.md "
            "says what to put there"
        )
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise DataError(f"{path} has no table of numbers, a row for each image")
    if len(features) != len(labels):
        raise DataError(f"{path} has {len(features)} rows of features for {len(labels)} labels")
    vectors = torch.from_numpy(np.ascontiguousarray(_squarable(features), np.float32))
    length = vectors.norm(dim=1)
    if not (length.isfinite() & (length > 0)).all():
        raise DataError(f"{path} has rows of features that are all zero or not finite")
    return vectors, labels


def _squarable(features: Array) -> Array:
    """Features whose squares float32 can hold: rows beyond are multiplied by a power of two each,
    which changes no direction."""
    exponent = np.frexp(np.abs(features).max(axis=1, initial=0))[1]
    beyond = np.abs(exponent) > _EXPONENT
    if not beyond.any():
        return features
    scaled = features.astype(np.float64)
    scaled[beyond] = np.ldexp(scaled[beyond], -exponent[beyond, None])
    return scaled


def _read_npz(path: Path) -> tuple[Array, list[str]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["features"], [as_text(label) for label in file["labels"].tolist()]
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise DataError(
            f"{path} is no npz file of features and labels ({one_line(error)}): docs/DATA.md says "
            "how to write one; save texts as labels.astype(str)"
        ) from error


def _read_h5(path: Path) -> Array:
    """The data set of an HDF5 file that has one."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            f"{path} needs h5py: run pip install h5py, or write {path.parent}.npz as docs/DATA.md "
            "says"
        ) from error
    try:
        with h5py.File(path) as file:
            (only,) = file.values()
            return np.asarray(only)
    except Exception as error:  # what h5py raises depends on what is damaged
        raise DataError(f"{path} is no HDF5 file with one data set ({one_line(error)})") from error


def _read_objects(path: Path) -> list[str]:
    try:
        return read_labels(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: the labels of the features beside it") from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is no pickle of labels ({one_line(error)}): docs/DATA.md says what else it "
            "can be"
        ) from error
