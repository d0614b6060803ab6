"""Data sets: the bundled digits, and idx files that the tests write."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.data import DataError, load_images

SIZES = {"train": 30, "t10k": 10}


def write_idx(path: Path, array: np.ndarray, *, zipped: bool = True) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    content = header + array.tobytes()
    if zipped:
        path = path.with_name(f"{path.name}.gz")
        content = gzip.compress(content)
    path.write_bytes(content)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A folder with a small fashion-mnist; every call of load_images reads another folder."""
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, count in SIZES.items():
        pixels = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte", pixels, zipped=part == "train")
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
    return tmp_path


def test_digits_are_the_real_ones() -> None:
    images = load_images("digits")
    assert images.pixels.shape == (1297, 64)
    assert images.test_pixels.shape == (500, 64)
    assert images.levels == 17
    assert int(images.pixels.max()) == 16
    assert images.classes == 10


def test_idx_files_are_read_zipped_or_not(data_dir: Path) -> None:
    images = load_images("fashion-mnist", data_dir)
    assert images.pixels.shape == (30, 784)
    assert images.pixels.dtype == torch.uint8
    assert images.test_labels.tolist() == list(range(10))
    expected = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
    assert np.array_equal(images.pixels.numpy(), expected.reshape(30, -1))


def test_the_digest_is_of_the_content(data_dir: Path, tmp_path: Path) -> None:
    first = load_images("fashion-mnist", data_dir).digest
    labels = np.zeros(30, np.uint8)
    write_idx(data_dir / "fashion-mnist" / "train-labels-idx1-ubyte", labels)
    load_images.cache_clear()
    assert load_images("fashion-mnist", data_dir).digest != first


def break_header(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\0\0\x0d\3" + bytes(12)))


def cut_short(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def cut_archive(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def no_archive(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "is missing: put the four idx files"),
        (break_header, "no idx file of 3-d bytes"),
        (cut_short, "23519 bytes of data where its header says 30 × 28 × 28"),
        (cut_archive, "can't be read"),
        (no_archive, "can't be read"),
    ],
)
def test_a_damaged_file_is_named(data_dir: Path, damage: object, words: str) -> None:
    file = data_dir / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    assert callable(damage)
    damage(file)
    with pytest.raises(DataError) as error:
        load_images("fashion-mnist", data_dir)
    assert "train-images-idx3-ubyte" in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_images_and_labels_must_match(data_dir: Path) -> None:
    write_idx(data_dir / "fashion-mnist" / "t10k-labels-idx1-ubyte", np.zeros(9, np.uint8))
    with pytest.raises(DataError, match="10 images for 9 labels"):
        load_images("fashion-mnist", data_dir)


def test_without_a_folder_the_error_says_what_to_do() -> None:
    with pytest.raises(DataError, match="--data-dir FOLDER, or use --dataset digits"):
        load_images("mnist")


def test_splits_do_not_overlap_and_do_not_change() -> None:
    images = load_images("digits")
    parts = images.split(validation=297, seed=0)
    assert [len(parts[name].pixels) for name in ("train", "validation", "test")] == [1000, 297, 500]
    both = torch.cat([parts["train"].pixels, parts["validation"].pixels])
    assert torch.equal(both.long().sum(dim=0), images.pixels.long().sum(dim=0))
    again = images.split(validation=297, seed=0)
    assert torch.equal(parts["train"].pixels, again["train"].pixels)
    with pytest.raises(DataError, match="leave none"):
        images.split(validation=1297, seed=0)


@pytest.mark.skipif("BENCH_DATA_DIR" not in os.environ, reason="BENCH_DATA_DIR is not set")
def test_mnist_is_read() -> None:
    images = load_images("mnist", Path(os.environ["BENCH_DATA_DIR"]))
    assert images.pixels.shape == (60_000, 784)
    assert images.test_pixels.shape == (10_000, 784)
    assert images.labels.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
