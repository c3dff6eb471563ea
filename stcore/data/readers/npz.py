"""Images and labels from numpy's npz files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stcore.data.images import Splits
from stcore.data.readers.archive import Archive, Arrays, Format, read_named
from stcore.data.readers.named import load_named
from stcore.data.split import Validation


def load_npz(place: str | Path, *, validation: Validation = None) -> Splits:
    """Read train.npz, test.npz and, if any, validation.npz of a folder, or one file with all parts.

    Names of the arrays, `validation` and errors: see `load_named`.
    """
    return load_named(Path(place), NPZ, validation)


def read_npz(path: Path) -> Arrays:
    """One file with one set; nothing in it is ever run. DataError if it is none, or has no images."""
    return read_named(path, NPZ)


@contextmanager
def _open(path: Path) -> Iterator[Archive]:
    archive: Any = np.load(path, allow_pickle=False)
    if isinstance(archive, np.ndarray):
        raise ValueError("a single array, without a name")
    with archive:
        yield archive


NPZ = Format(
    "npz",
    "a folder with train.npz and test.npz, or one npz file",
    "a whole npz file of numbers and text",
    "fetch it again, or write it by numpy.savez",
    _open,
    Path.is_file,
)
