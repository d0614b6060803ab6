"""Labels out of a pickle, of which nothing is run.

A pickle says which functions to call to build what it holds. These here may name those of numpy
that an array takes, and get stand-ins that only keep what they are called with: numpy's own would
follow a made-up dtype anywhere in memory.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np


class _StandIn:
    """What a pickle has built: the arguments of its call and, if it sets one, its state."""

    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_StandIn):
    """An array that is made empty; its state is (version, shape, dtype, order, data)."""


class _FromBuffer(_StandIn):
    """An array of (data, dtype, shape, order): protocol 5."""


class _Scalar(_StandIn):
    """A number or text of (dtype, data)."""


class _Dtype(_StandIn):
    """Made from (code, …); its state is (version, byte order, …)."""


class _Encoded(_StandIn):
    """Bytes as (text, "latin1"): protocols 0 to 2."""


_STAND_INS = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer,
    ("numpy.core._internal", "_convert_to_stringdtype_kwargs"): _Dtype,  # numpy 2's texts
    ("_codecs", "encode"): _Encoded,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_StandIn]:
        # numpy 2 has another name for its core.
        found = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise pickle.UnpicklingError(f"it would call {module}.{name}")
        return found


def read_labels(path: Path) -> list[str]:
    """Labels from a pickled list or one-dimensional array of texts or whole numbers.

    Any protocol, from Python 2 or 3 and numpy 1 or 2.

    Raises:
        ValueError: the file is none of these.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        try:
            # What Python 2 wrote as bytes is text here.
            return [as_text(label) for label in _items(_Unpickler(file, encoding="latin1").load())]
        except Exception as error:  # a damaged pickle may raise anything
            raise ValueError(str(error)) from error


def _items(found: object) -> list[Any]:
    """The elements of a list or of what stands in for an array of one dimension."""
    match found:
        case list() | tuple():
            return list(found)
        case _Array(state=(_, (count,), dtype, _, data)):
            items = _elements(dtype, data)
        case _FromBuffer(arguments=(data, dtype, (count,), *_)):
            items = _elements(dtype, data)
        case _:
            raise ValueError("it holds neither a list nor an array of one dimension")
    if len(items) != count:
        raise ValueError(f"it holds {len(items)} labels and says {count}")
    return items


def _elements(dtype: object, data: Any) -> list[Any]:
    """What the data of an array are: objects, or the values that bytes stand for."""
    if isinstance(data, list):
        return data
    match dtype:
        case _Dtype(arguments=(str(code), *_), state=(_, str(order), *_)):
            if re.fullmatch(r"[SUiu]\d{1,4}", code) and order in tuple("<>=|"):
                return np.frombuffer(_bytes(data), np.dtype(order + code)).tolist()
    raise ValueError("its array is neither of texts nor of whole numbers")


def _bytes(data: Any) -> bytes | bytearray:
    if isinstance(data, _Encoded):
        data = data.arguments[0]
    return data.encode("latin1") if isinstance(data, str) else data


def as_text(label: object) -> str:
    """A label that is text, bytes or a whole number.

    Raises:
        ValueError: it is something else.
    """
    match label:
        case _Scalar(arguments=(dtype, data)):
            return as_text(_elements(dtype, data)[0])
        case _Encoded(arguments=(str(text), _)):
            return text
        case str():
            return label
        case bytes():
            return label.decode("latin1")
        case int():
            return str(label)
    raise ValueError(f"one of its labels is of type {type(label).__name__}")
