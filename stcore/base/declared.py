"""Sizes that a file declares, checked before anything is allocated: a few megabytes can declare terabytes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stcore.errors import DataError

RATIO = 50
"""How many times its own size a file may hold. Photographs compress to a tenth, drawings to a thirtieth."""
FREE = 1 << 28
"""Bytes that any file may hold, however well it is compressed."""
PIXELS = 89_478_485
"""Pixels of one image: from here on pillow warns of a decompression bomb."""


def check_expansion(origin: object, declared: int, stored: int) -> None:
    """Raises DataError if a file of `stored` bytes declares more content than any set of images has.

    origin: names the file in the error.   declared: bytes of its arrays, or of its unpacked members.
    """
    if declared > max(FREE, RATIO * stored):
        raise DataError(
            f"{origin}: expected at most {RATIO} times the file's own {stored} bytes, received one that declares "
            f"{declared} bytes; nothing was unpacked. If you trust it, unpack it, or write its arrays uncompressed"
        )


def check_pixels(origin: object, width: int, height: int) -> None:
    """Raises DataError for an image whose header declares more than `PIXELS` pixels."""
    if width * height > PIXELS:
        raise DataError(
            f"{origin}: expected an image of at most {PIXELS} pixels, received one that declares "
            f"{width}x{height}; nothing was decoded. Make it smaller"
        )


def npy_bytes(file: BinaryIO) -> int:
    """Bytes of the array that an npy file declares in its header; the file is read no further.

    Raises ValueError if it has no such header, or is an array of Python objects.
    """
    version = np.lib.format.read_magic(file)
    # What a header of version 3 has more than one of version 2 is names that are not Latin-1.
    read: Callable[[BinaryIO], Any] = np.lib.format.read_array_header_2_0
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    count = 1
    for size in shape:
        count *= int(size)
    return count * int(dtype.itemsize)


def check_npz(path: Path) -> None:
    """Raises DataError if the arrays of an npz file are more, by its index and their headers, than it can hold.

    A file that is no zip archive is left to its reader.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        check_expansion(path, sum(member.file_size for member in members), path.stat().st_size)
        for member in members:
            if member.filename.endswith(".npy"):
                with archive.open(member) as file:
                    declared = npy_bytes(file)  # type: ignore[arg-type]
                if declared > member.file_size:
                    raise ValueError(f"{member.filename} breaks off: {member.file_size} of {declared} bytes")
