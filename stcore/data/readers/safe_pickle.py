"""Safe reading of pickles of numbers and text: no code in a pickle is run.

A pickle is a program that names functions and calls them. Here every name resolves to one of our stand-ins or is
refused; numpy receives only checked bytes, shapes and numeric types.
"""

import io
import pickle
import pickletools
import re
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from stcore.errors import DataError


def load_dict(source: bytes | BinaryIO, origin: str) -> dict[str, Any]:
    """Reads a pickled dict of arrays, numbers, text and lists of these, written by Python 2 or 3.

    Keys become str; text of Python 2 stays bytes; an array that is a value of the dict becomes a numpy array,
    which may be read-only.
    Raises DataError, with `origin`, if the pickle asks for anything else (it is not run), or is incomplete.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        _check_sizes(stream)
        content = _Unpickler(stream, encoding="bytes").load()
        if not isinstance(content, dict):
            raise _Refused(f"a {type(content).__name__}")
        return {text(key): value.numpy if isinstance(value, _Array) else value for key, value in content.items()}
    except _Refused as refused:
        raise DataError(
            f"{origin}: expected a pickled dict of numbers and text alone, received {refused}; "
            "download the file from its original source, or convert its arrays to npz"
        ) from refused
    except Exception as error:  # invalid bytes raise many kinds of errors, MemoryError too
        raise DataError(
            f"{origin}: expected a whole pickle, received one that cannot be read "
            f"({error or 'it ends too early'}); fetch it again"
        ) from error


def text(value: Any) -> str:
    """Converts str, or bytes of a Python 2 str, to str. Raises TypeError for anything else."""
    if isinstance(value, bytes):
        return value.decode("latin1")
    if not isinstance(value, str):
        raise TypeError(f"expected text, received {type(value).__name__}")
    return value


def _check_sizes(stream: BinaryIO) -> None:
    """Refuses a pickle whose lengths or memo indices exceed its own size: it would allocate too much memory."""
    begin = stream.tell()
    size = stream.seek(0, io.SEEK_END) - begin
    stream.seek(begin)
    for operation, argument, _ in pickletools.genops(stream):  # raises for lengths beyond the end
        if "PUT" in operation.name and isinstance(argument, int) and argument > size:
            raise _Refused(f"one that wants room for {argument} objects in {size} bytes")
    stream.seek(begin)


class _Refused(ValueError):
    """A pickle asked for something other than numbers and text."""


class _Unpickler(pickle.Unpickler):
    """An unpickler that resolves names to stand-ins only."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _STAND_INS:
            raise _Refused(f"one that wants to run {module}.{name}, which was refused and not run")
        return _STAND_INS[f"{module}.{name}"]


class _Dtype:
    """A dtype of numbers or of fixed-length text."""

    __slots__ = ("numpy",)

    def __init__(self, code: str) -> None:
        self.numpy = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order = text(state[1])
        if order not in tuple("<>=|"):
            raise _Refused(f"an array of byte order {order!r}")
        if order in tuple("<>"):
            self.numpy = self.numpy.newbyteorder("<" if order == "<" else ">")


class _Array:
    """An array, whose content is set after it is created."""

    __slots__ = ("numpy",)
    numpy: npt.NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.numpy = _content(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _content(raw: Any, dtype: _Dtype) -> npt.NDArray[Any]:
    return np.frombuffer(raw, dtype.numpy)


class _StandIn:
    """A callable in place of a function that a pickle names; it has no attribute that a pickle could set."""

    __slots__ = ()


class _MakeDtype(_StandIn):
    __slots__ = ()

    def __call__(self, code: Any, *_: Any) -> _Dtype:
        if not re.fullmatch(r"[biufSU]\d{1,9}", text(code)):
            raise _Refused(f"an array of type {text(code)!r} (O is of Python objects)")
        return _Dtype(text(code))


class _MakeArray(_StandIn):
    __slots__ = ()

    def __call__(self, *_: Any) -> _Array:
        return _Array()


class _MakeArrayFromBuffer(_StandIn):  # for protocol 5
    __slots__ = ()

    def __call__(self, raw: Any, dtype: _Dtype, shape: Any, order: Any, *_: Any) -> _Array:
        array = _Array()
        array.__setstate__((1, shape, dtype, order == "F", raw))
        return array


class _MakeScalar(_StandIn):
    __slots__ = ()

    def __call__(self, dtype: _Dtype, raw: Any) -> Any:
        return _content(raw, dtype)[0]


class _Encode(_StandIn):  # Python 3 writes bytes this way in Python 2's protocols
    __slots__ = ()

    def __call__(self, string: Any, codec: Any) -> bytes:
        if text(codec) not in ("latin1", "latin-1"):
            raise _Refused(f"text encoded as {text(codec)!r}")
        return text(string).encode("latin1")


_STAND_INS = {
    "numpy.ndarray": _StandIn(),
    "numpy.dtype": _MakeDtype(),
    "_codecs.encode": _Encode(),
} | {
    f"numpy.{core}.{name}": stand_in
    for core in ("core", "_core")
    for name, stand_in in (
        ("multiarray._reconstruct", _MakeArray()),
        ("multiarray.scalar", _MakeScalar()),
        ("numeric._frombuffer", _MakeArrayFromBuffer()),
    )
}
