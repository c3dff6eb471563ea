"""Exact differences: adversarial pixels as whole-number differences of their bit patterns from the natural image.

A floating-point number is 32 or 64 bits, which are a whole number too. Modulo 2³² (2⁶⁴) the difference of two of
these is exact, whatever the numbers, so that the very pixels that were evaluated return; a rounded difference of
the values themselves would not do. Sorted by the significance of their bytes the differences compress well.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from stcore.data.pixels import unit_interval
from stcore.errors import DataError
from stcore.protocols import Array

WORDS: Mapping[str, np.dtype[Any]] = {"float32": np.dtype("<u4"), "float64": np.dtype("<u8")}
"""The whole numbers of each type of pixels."""


def encode(points: Array, images: Array) -> Array:
    """Packs points (n, …), float32 or float64, as differences from uint8 images (n, …): uint8 (bytes,)."""
    word = WORDS[points.dtype.name]
    words = _bits(points, word) - _bits(unit_interval(images, points.dtype), word)
    planes = words.reshape(-1, 1).view(np.uint8).T  # the lowest bytes of all pixels first
    return np.frombuffer(zlib.compress(planes.tobytes(), 6), np.uint8)


def decode(packed: Array, images: Array, dtype: str) -> Array:
    """Returns the points (n, …) that `encode` packed, bit for bit. Raises DataError if they do not fit."""
    word = WORDS[dtype]
    length = images.size * word.itemsize
    unpacking = zlib.decompressobj()
    try:
        planes = unpacking.decompress(packed.tobytes(), length + 1)  # a few bytes can declare gigabytes
    except zlib.error as error:
        raise DataError(f"evidence: its differences are damaged ({error}). Fetch the file again") from error
    if len(planes) != length or not unpacking.eof:
        raise DataError(
            f"evidence: expected {length} bytes of differences for {len(images)} images of shape "
            f"{images.shape[1:]}; received {'more' if len(planes) > length else len(planes)}. Fetch the file again"
        )
    words = np.frombuffer(planes, np.uint8).reshape(word.itemsize, -1).T.copy().view(word)
    points: Array = (words.reshape(images.shape) + _bits(unit_interval(images, dtype), word)).view(dtype)
    return points


def _bits(values: Array, word: np.dtype[Any]) -> Array:
    return np.ascontiguousarray(values, f"<f{word.itemsize}").view(word)
