"""idx files that the tests write, whole and damaged."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.data.base import DataError
from tasks.data.idx import read_images, unzipped
from tests.tasks.files import SIZES, write_idx, write_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", zip_tests=False)
    return tmp_path / "images"


def test_files_are_read_zipped_or_not(folder: Path) -> None:
    images = read_images("some", folder)
    assert (images.name, images.levels, images.classes) == ("some", 256, 10)
    assert images.inputs.shape == (30, 784)
    assert images.inputs.dtype == torch.uint8
    assert images.test_labels.tolist() == list(range(10))
    rng = np.random.default_rng(0)
    expected = [rng.integers(0, 256, (count, 28, 28), np.uint8) for count in (30, 10)]
    assert np.array_equal(images.inputs.numpy(), expected[0].reshape(30, -1))
    assert np.array_equal(images.test_inputs.numpy(), expected[1].reshape(10, -1))


def test_an_archive_is_known_by_its_content_and_not_by_its_name(folder: Path) -> None:
    file = folder / "train-images-idx3-ubyte.gz"
    file.rename(file.with_suffix(""))
    assert read_images("some", folder).inputs.shape == (30, 784)


def break_header(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\0\0\x0d\3" + bytes(12)))


def negate_sizes(path: Path) -> None:
    """Of two of them, so that their product stays."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[4:12] = np.array([-30, -28], ">i4").tobytes()
    path.write_bytes(gzip.compress(content))


def empty(path: Path) -> None:
    write_idx(path.with_suffix(""), np.zeros((0, 28, 28), np.uint8))


def cut_short(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def cut_archive(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def spoil_archive(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def no_archive(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "is missing: put the four idx files"),
        (break_header, "no idx file of 3-d bytes"),
        (cut_short, "23519 bytes of data where its header says 30 × 28 × 28"),
        (negate_sizes, "23520 bytes of data where its header says -30 × -28 × 28"),
        (empty, "0 bytes of data where its header says 0 × 28 × 28"),
        (cut_archive, "can't be read"),
        (spoil_archive, "can't be read"),
        (no_archive, "no idx file of 3-d bytes"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(folder / "train-images-idx3-ubyte.gz")
    with pytest.raises(DataError) as error:
        read_images("some", folder)
    assert "train-images-idx3-ubyte" in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_name_with_a_dot_is_told(folder: Path, ending: str) -> None:
    """As some archives have them."""
    (folder / "train-images-idx3-ubyte.gz").rename(folder / f"train-images.idx3-ubyte{ending}")
    with pytest.raises(DataError, match=rf"missing: rename train-images\.idx3-ubyte{ending}, and"):
        read_images("some", folder)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "train-images.idx3-ubyte"])
def test_a_folder_that_is_the_data_set_itself_is_told(folder: Path, name: str) -> None:
    (folder / "train-images-idx3-ubyte.gz").rename(folder / name)
    with pytest.raises(DataError, match="takes the folder above mnist, and this one has"):
        read_images("mnist", folder / "mnist")


def test_images_and_labels_must_match(folder: Path) -> None:
    write_idx(folder / "t10k-labels-idx1-ubyte", np.zeros(9, np.uint8))
    with pytest.raises(DataError, match="10 images for 9 labels"):
        read_images("some", folder)


def test_images_are_of_one_size(folder: Path) -> None:
    write_idx(folder / "t10k-images-idx3-ubyte", np.zeros((10, 14, 14), np.uint8), zipped=False)
    with pytest.raises(DataError, match=r"t10k-images\S* has images of 14 × 14 .* 28 × 28: make"):
        read_images("some", folder)


def test_images_that_are_not_square_keep_their_height_and_width(folder: Path) -> None:
    for part, count in SIZES.items():
        pixels = np.arange(count * 14 * 56).reshape(count, 14, 56).astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte", pixels, zipped=part == "train")
    images = read_images("some", folder)
    assert images.shape == (14, 56)
    assert images.inputs.shape == (30, 784)


@pytest.mark.parametrize("part", SIZES)
def test_other_grey_levels_are_told(folder: Path, part: str) -> None:
    """Else they are nearly black."""
    pixels = np.eye(28, dtype=np.uint8)[None].repeat(SIZES[part], axis=0)
    write_idx(folder / f"{part}-images-idx3-ubyte", pixels, zipped=part == "train")
    with pytest.raises(DataError, match=rf"{part}-images\S* has no pixel above 1, where 255 is"):
        read_images("some", folder)


def test_what_is_no_archive_is_its_own_content() -> None:
    assert unzipped(b"plain") == b"plain"
    assert unzipped(gzip.compress(b"packed")) == b"packed"
