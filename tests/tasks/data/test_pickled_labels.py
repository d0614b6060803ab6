"""Labels out of pickles of all kinds, and pickles that would do something else."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tasks.data.pickled_labels import read_labels

NAMES = ["cat", "dog", "cat", "zebra"]
NUMBERS = [3, 1, 3, 200]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "labels",
    [
        NAMES,
        tuple(NAMES),
        np.array(NAMES),
        np.array(NAMES).astype(">U7"),
        np.array(NAMES, object),
        np.array(NAMES, "S"),
        np.array(NAMES, getattr(np.dtypes, "StringDType", str)()),  # numpy 2's
        [name.encode() for name in NAMES],
        list(np.array(NAMES)),
        NUMBERS,
        np.array(NUMBERS),
        np.array(NUMBERS, ">i2"),
        np.array(NUMBERS, np.uint8),
        list(np.array(NUMBERS)),
    ],
    ids=lambda labels: f"{type(labels).__name__}-{getattr(labels, 'dtype', type(labels[0]))}",
)
def test_labels_are_read_whatever_holds_them(tmp_path: Path, labels: object, protocol: int) -> None:
    found = read_labels(written(tmp_path / "labels", pickle.dumps(labels, protocol)))
    expected = NAMES if found[0] == "cat" else [str(number) for number in NUMBERS]
    assert found == expected


def test_names_of_older_numpys_are_known(tmp_path: Path) -> None:
    """Protocol 2, where module names are spelled out."""
    content = pickle.dumps(np.array(NAMES), 2)
    assert b"numpy._core" in content or b"numpy.core" in content
    for core in (b"numpy.core", b"numpy._core"):
        other = content.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", core)
        assert read_labels(written(tmp_path / "labels", other)) == NAMES


PYTHON_2_ARRAY = (
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85U\x01b"
    b"\x87Rq\x02(K\x01K\x02\x85cnumpy\ndtype\nq\x03U\x02S4K\x00K\x01\x87Rq\x04(K\x03U\x01|NNN"
    b"K\x04K\x01K\x00tb\x89U\x08cat\x00caf\xe9tb."
)
PYTHON_2_LIST = b"(lp0\nS'cat'\np1\naVdog\np2\naI7\na."


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    assert read_labels(written(tmp_path / "array", PYTHON_2_ARRAY)) == ["cat", "café"]
    assert read_labels(written(tmp_path / "list", PYTHON_2_LIST)) == ["cat", "dog", "7"]


class Calls:
    """Pickled as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> object:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("wrap", [lambda call: call, lambda call: ["cat", call]])
def test_nothing_in_a_pickle_is_run(tmp_path: Path, protocol: int, wrap: object) -> None:
    assert callable(wrap)
    trace = tmp_path / "trace"
    for call in (
        Calls(os.system, f"touch {trace}"),
        Calls(eval, f"open({str(trace)!r}, 'w')"),
        Calls(getattr, Path, "touch"),
        Calls(np.save, str(trace), NUMBERS),
    ):
        path = written(tmp_path / "labels", pickle.dumps(wrap(call), protocol))
        with pytest.raises(ValueError, match="it would call "):
            read_labels(path)
        assert not trace.exists()


class Forged:
    """An array of objects that are to be found at made-up addresses."""

    def __reduce__(self) -> object:
        from_buffer = np.empty(1).__reduce_ex__(5)[0]
        return from_buffer, (b"\x41" * 8, ForgedDtype(), (1,), "C")


class ForgedDtype:
    def __reduce__(self) -> object:
        return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)


def test_a_forged_dtype_leads_nowhere(tmp_path: Path) -> None:
    """numpy itself would crash."""
    path = written(tmp_path / "labels", pickle.dumps(Forged(), 5))
    with pytest.raises(ValueError, match="neither of texts nor of whole numbers"):
        read_labels(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps({"cat": 1}), "neither a list nor an array"),
        (pickle.dumps("cat"), "neither a list nor an array"),
        (pickle.dumps(np.zeros((2, 2), int), 2), "neither a list nor an array"),
        (pickle.dumps(np.zeros(2), 2), "neither of texts nor of whole numbers"),
        (pickle.dumps([1.5]), "of type float"),
        (pickle.dumps(np.array([None])), "of type NoneType"),
        (PYTHON_2_ARRAY.replace(b"K\x02\x85", b"K\x03\x85"), "holds 2 labels and says 3"),
        (pickle.dumps(NAMES)[:-4], None),
        (b"", None),
        (b"<html>not found</html>", None),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, content: bytes, words: str | None) -> None:
    with pytest.raises(ValueError, match=words):
        read_labels(written(tmp_path / "labels", content))
