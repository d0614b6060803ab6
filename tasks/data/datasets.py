"""Data sets by name: bundled, fetched, or in a folder of the user's."""

from functools import cache
from pathlib import Path

import numpy as np
import torch

from tasks.data.base import NOTHING, DataError, Dataset, Images
from tasks.data.download import fetched
from tasks.data.features import read_features
from tasks.data.idx import read_images

BUNDLED = "digits"
FEATURES = "features"
DATASETS = (BUNDLED, "fashion-mnist", FEATURES, "mnist")


@cache
def load_dataset(name: str, data_dir: Path | None = None) -> Dataset:
    """A data set by name, kept in memory for the next call.

    Args:
        name: one of `DATASETS`, or `NOTHING`: a single input, which is 1.
        data_dir: folder that holds a folder `name`; nothing is fetched then. Without it MNIST and
            Fashion-MNIST come from the cache, and into it from the network. The bundled digits need
            neither.
    Raises:
        DataError: a file is missing or damaged, can't be fetched, or the name is unknown.
    """
    if name == NOTHING:
        one, label = torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)
        return Dataset(NOTHING, one, label, one, label)
    if name not in DATASETS:
        raise DataError(f"no data set {name!r}; there are {', '.join(DATASETS)}")
    if name == BUNDLED:
        return _digits()
    if name != FEATURES:
        return read_images(name, fetched(name) if data_dir is None else data_dir / name)
    if data_dir is None:
        raise DataError(
            f"{name} are not public: put yours into FOLDER/{name} as docs/DATA.md says and pass "
            f"--data-dir FOLDER, or use --dataset {BUNDLED}"
        )
    return read_features(name, data_dir / name)


def _digits() -> Images:
    """The 1,797 handwritten digits that come with scikit-learn, 8 × 8 with 17 grey levels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.data))
    pixels = torch.from_numpy(bunch.data[order].astype(np.uint8))
    labels = torch.from_numpy(bunch.target[order].astype(np.int64))
    train = 1297
    parts = (pixels[:train], labels[:train], pixels[train:], labels[train:])
    return Images(BUNDLED, *parts, levels=17, shape=(8, 8))
