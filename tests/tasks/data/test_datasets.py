"""Data sets by name: where each is looked for."""

import os
from pathlib import Path

import pytest

from tasks.data import datasets
from tasks.data.base import DataError, Features, Images
from tasks.data.datasets import DATASETS, load_dataset
from tests.tasks.files import write_features, write_images


def test_digits_are_the_real_ones() -> None:
    images = load_dataset("digits")
    assert isinstance(images, Images)
    assert images.inputs.shape == (1297, 64)
    assert images.test_inputs.shape == (500, 64)
    assert images.levels == 17
    assert int(images.inputs.max()) == 16
    assert images.classes == 10


def test_a_folder_of_the_users_is_read_and_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "fetched", lambda name: pytest.fail("fetched"))
    write_images(tmp_path / "fashion-mnist")
    write_features(tmp_path / "features")
    images = load_dataset("fashion-mnist", tmp_path)
    assert isinstance(images, Images)
    assert (images.name, len(images.inputs)) == ("fashion-mnist", 30)
    assert isinstance(load_dataset("features", tmp_path), Features)
    with pytest.raises(DataError, match=r"mnist/train-images-idx3-ubyte\.gz is missing") as error:
        load_dataset("mnist", tmp_path)
    assert str(tmp_path) in str(error.value)


def test_without_a_folder_images_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_dataset.cache_clear()
    write_images(tmp_path / "mnist")
    monkeypatch.setattr(datasets, "fetched", lambda name: tmp_path / name)
    assert len(load_dataset("mnist").inputs) == 30
    load_dataset.cache_clear()


def test_features_are_the_users_own() -> None:
    with pytest.raises(DataError, match=r"features are not public: .* --data-dir FOLDER"):
        load_dataset("features")


def test_names_are_known() -> None:
    with pytest.raises(DataError, match="no data set 'mnst'; there are digits, "):
        load_dataset("mnst")
    assert list(DATASETS) == sorted(DATASETS)


@pytest.mark.skipif("BENCH_DATA_DIR" not in os.environ, reason="BENCH_DATA_DIR is not set")
def test_mnist_is_read() -> None:
    images = load_dataset("mnist", Path(os.environ["BENCH_DATA_DIR"]))
    assert images.inputs.shape == (60_000, 784)
    assert images.test_inputs.shape == (10_000, 784)
    assert images.labels.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
