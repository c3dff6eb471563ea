"""Pickles of numbers and text, read without running what a pickle may ask to run.

A pickle is a program: it names functions and has them called. Here every name leads to a stand-in of our own
or to a refusal; numpy itself is never handed what a file says, only checked bytes, shapes and types of numbers.
"""

import io
import pickle
import pickletools
import re
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from stcore.errors import DataError


def load_dict(source: bytes | BinaryIO, where: str) -> dict[str, Any]:
    """A pickled dict of arrays, numbers, text and lists of these, written by Python 2 or 3.

    Keys become str; the text that Python 2 wrote stays bytes; an array that is a value of the dict becomes
    a numpy array, which may be read-only.
    DataError, which names `where`, if the pickle wants anything else (it is not run), or is not whole.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        _measure(stream)
        found = _Unpickler(stream, encoding="bytes").load()
        if not isinstance(found, dict):
            raise _Refused(f"a {type(found).__name__}")
        return {text(key): value.numpy if isinstance(value, _Array) else value for key, value in found.items()}
    except _Refused as refused:
        raise DataError(
            f"{where}: expected a pickled dict of numbers and text alone, received {refused}; "
            "get the file from where it was first published, or have its arrays as npz"
        ) from refused
    except Exception as error:  # foreign bytes make it raise many kinds, MemoryError too
        raise DataError(
            f"{where}: expected a whole pickle, received one that cannot be read "
            f"({error or 'it ends too early'}); fetch it again"
        ) from error


def text(value: Any) -> str:
    """str of str or of the bytes that Python 2 called so; TypeError for anything else."""
    if isinstance(value, bytes):
        return value.decode("latin1")
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text belongs")
    return value


def _measure(stream: BinaryIO) -> None:
    """Refuses a pickle that asks for more room than it fills: lengths, and places in its memo, beyond its size."""
    begin = stream.tell()
    size = stream.seek(0, io.SEEK_END) - begin
    stream.seek(begin)
    for operation, argument, _ in pickletools.genops(stream):  # which refuses lengths beyond the end
        if "PUT" in operation.name and isinstance(argument, int) and argument > size:
            raise _Refused(f"one that wants room for {argument} objects in {size} bytes")
    stream.seek(begin)


class _Refused(ValueError):
    """Something that no pickle of numbers and text holds."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _STAND_INS:
            raise _Refused(f"one that wants to run {module}.{name}, which was refused and not run")
        return _STAND_INS[f"{module}.{name}"]


class _Dtype:
    """A type of numbers or of text of a fixed length."""

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
    """An array, which gets its content after it was made."""

    __slots__ = ("numpy",)
    numpy: npt.NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.numpy = _content(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _content(raw: Any, dtype: _Dtype) -> npt.NDArray[Any]:
    return np.frombuffer(raw, dtype.numpy)


class _StandIn:
    """What a pickle calls in place of the function that it names. It has no attribute that a pickle could set."""

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


class _MakeArrayAtOnce(_StandIn):  # as protocol 5 has it
    __slots__ = ()

    def __call__(self, raw: Any, dtype: _Dtype, shape: Any, order: Any, *_: Any) -> _Array:
        array = _Array()
        array.__setstate__((1, shape, dtype, order == "F", raw))
        return array


class _MakeScalar(_StandIn):
    __slots__ = ()

    def __call__(self, dtype: _Dtype, raw: Any) -> Any:
        return _content(raw, dtype)[0]


class _Encode(_StandIn):  # Python 3 writes bytes so in Python 2's protocols
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
        ("numeric._frombuffer", _MakeArrayAtOnce()),
    )
}
