"""Features in files: the published layout, and npz."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tasks.data.base import DataError
from tasks.data.features import read_features
from tests.tasks.files import some_features, write_features, write_published

H5 = "ours_images_single_sm0.h5"


def some_test_features() -> tuple[np.ndarray, np.ndarray]:
    features, labels = some_features(10, 5, seed=1)
    return np.pad(features, [(0, 0), (0, 1)]), labels


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The published layout, with 30 images of 6 concepts to train on and 10 of 5 to test."""
    write_published(tmp_path / "train", *some_features(30, 6))
    write_published(tmp_path / "test", *some_test_features())
    return tmp_path


def test_the_published_layout_is_read(published: Path) -> None:
    found = read_features("some", published)
    features, labels = some_features(30, 6)
    assert (found.name, found.size, found.classes) == ("some", 8, 6)
    assert found.inputs.dtype == torch.float32
    assert np.array_equal(found.inputs.numpy(), features)
    assert [f"n{number:03}" for number in found.labels.tolist()] == labels.tolist()
    assert found.test_inputs.shape == (10, 8)
    assert found.test_labels.tolist() == [0, 1, 2, 3, 4] * 2


def test_a_concept_has_one_number_in_train_and_test(published: Path) -> None:
    features, labels = some_test_features()
    swapped = np.where(labels == "n000", "a new one", labels)
    np.savez(published / "test.npz", features=features, labels=swapped)
    found = read_features("some", published)
    assert found.test_labels.tolist() == [6, 1, 2, 3, 4] * 2
    assert found.labels.tolist()[:6] == [0, 1, 2, 3, 4, 5]


def test_both_formats_hold_the_same(published: Path, tmp_path: Path) -> None:
    """Whatever type and order numbers are in."""
    first = read_features("some", published)
    for part in ("train", "test"):
        with h5py.File(published / part / H5) as file:
            features = np.asarray(file["dataset_1"], ">f8", order="F")
        labels = some_features(30, 6)[1] if part == "train" else some_features(10, 5)[1]
        np.savez(tmp_path / f"{part}.npz", features=features, labels=labels.astype("S"))
        (published / part / H5).unlink()
    assert read_features("other", tmp_path).digest == first.digest


def test_numbers_from_0_on_stay_what_they_are(tmp_path: Path) -> None:
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", features=np.ones((12, 2)), labels=np.arange(12))
    assert read_features("some", tmp_path).labels.tolist() == list(range(12))


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e-14, 1e14, 1e30, 1e300])
def test_features_may_be_of_any_scale(tmp_path: Path, scale: float) -> None:
    """Beyond what float32 has the squares of: their directions are the same."""
    features, labels = some_features(30, 6)
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", features=features * np.float64(scale), labels=labels)
    found = F.normalize(read_features("some", tmp_path).inputs, dim=1)
    torch.testing.assert_close(found, F.normalize(torch.from_numpy(features), dim=1))


def test_whole_numbers_are_features_and_labels_too(tmp_path: Path) -> None:
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", features=[[3, 4], [0, 2]], labels=[7, 5])
    found = read_features("some", tmp_path)
    assert torch.equal(found.inputs, torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    assert found.labels.tolist() == [1, 0]


def test_the_examples_of_the_documentation_work(published: Path, tmp_path: Path) -> None:
    """Written from arrays, and from the published files."""
    page = (Path(__file__).parents[3] / "docs" / "DATA.md").read_text()
    from_arrays, from_published = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    first = read_features("some", published)
    exec(from_published.replace("FOLDER/features", str(published)), {})
    assert (published / "train.npz").is_file()
    assert read_features("some", published).digest == first.digest
    features, labels = some_features(30, 6)
    own = tmp_path / "own"
    own.mkdir()
    arrays = {"features": features, "labels": labels}
    arrays |= {"test_features": features, "test_labels": labels}
    exec(from_arrays.replace("FOLDER/features", str(own)), arrays)
    assert torch.equal(read_features("some", own).inputs, first.inputs)


def rewrite(path: Path, *tables: np.ndarray | h5py.Empty) -> None:
    with h5py.File(path, "w") as file:
        for place, table in enumerate(tables):
            file[f"part {place}"] = table


FORGED = b"\x80\x04\x8c\x0aos\nrm\x1b[31m\x8c\xff" + b"x" * 255 + b"\x93."
"""A pickle that would call something of a long name, which a terminal takes for more than text."""


def spoil(value: float) -> Callable[[Path], None]:
    features = some_features(30, 6)[0]
    features[7] = value
    return lambda path: rewrite(path, features)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "has neither train.npz nor train/ours_images_single_sm0.h5: docs/DATA.md"),
        (lambda path: path.with_suffix(".objects").unlink(), ".objects is missing: the labels"),
        (lambda path: path.with_suffix(".objects").write_bytes(b"x"), "is no pickle of labels"),
        (lambda path: path.write_bytes(b"x"), "is no HDF5 file with one data set"),
        (lambda path: rewrite(path), "is no HDF5 file with one data set"),
        (
            lambda path: rewrite(path, np.ones((30, 8)), np.ones((30, 8))),
            "is no HDF5 file with one data set",
        ),
        (lambda path: rewrite(path, h5py.Empty("f4")), "is no HDF5 file with one data set"),
        (
            lambda path: path.with_suffix(".objects").write_bytes(FORGED),
            "it would call os rm?[31m.x",
        ),
        (lambda path: rewrite(path, np.ones((8, 30))), "8 rows of features for 30 labels"),
        (lambda path: rewrite(path, np.ones(30)), "no table of numbers"),
        (lambda path: rewrite(path, np.full((30, 8), b"x")), "no table of numbers"),
        (lambda path: rewrite(path, np.ones((30, 9))), "9 features of an image in train and 8 in"),
        (spoil(0), "all zero or not finite"),
        (spoil(np.nan), "all zero or not finite"),
        (spoil(np.inf), "all zero or not finite"),
    ],
)
def test_what_is_wrong_is_named(
    published: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(published / "train" / H5)
    with pytest.raises(DataError) as error:
        read_features("some", published)
    assert words in str(error.value)
    assert str(published) in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value).removeprefix(str(published))) < 350


def test_an_npz_file_holds_no_pickle_and_both_arrays(tmp_path: Path) -> None:
    write_features(tmp_path / "features")
    path = tmp_path / "features" / "test.npz"
    features, labels = some_features(100, 20)
    for arrays in (
        {"features": features, "labels": labels.astype(object)},
        {"features": features},
        {"features": features, "labels": np.ones((100, 2), int)},
        {"features": features, "labels": np.ones(100, [(f"name {i}", int) for i in range(999)])},
    ):
        np.savez(path, **arrays)
        words = r"test\.npz is no npz file of features and labels"
        with pytest.raises(DataError, match=words) as error:
            read_features("some", tmp_path / "features")
        assert str(error.value).isprintable()


def test_without_h5py_the_error_says_so(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"needs h5py: run pip install h5py, or write .*train\.npz"):
        read_features("some", published)
