"""npz files of images and labels."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stcore.base.declared import check_npz
from stcore.data.images import Splits
from stcore.data.readers.archive import Archive, Arrays, Format, read_named
from stcore.data.readers.named import load_named
from stcore.data.split import Validation


def load_npz(place: str | Path, *, validation: Validation = None) -> Splits:
    """Reads train.npz, test.npz and, if any, validation.npz of a folder, or one file with all parts.

    In a folder's files the images are named images, image, x or data, and the labels labels, label or y; in one
    file each name includes its part: x_train, y_train, x_test, y_test, or train_images and so on. Images are (N,
    H, W, C) or (N, H, W), uint8 or floats in [0, 1]; labels are integers (N,) from 0. num_classes and class_names
    are optional.

    validation: None uses the set's validation part, or else holds out 2 % of train; a count or a fraction holds
        out that much; "test" selects on the test set.
    Raises DataError, with the file, if the files do not hold this; UsageError for a setting that does not fit.
    """
    return load_named(Path(place), NPZ, validation)


def read_npz(path: Path) -> Arrays:
    """Reads one file with one set without running any code in it.

    Raises DataError if the file is invalid or has no images.
    """
    return read_named(path, NPZ)


@contextmanager
def _open(path: Path) -> Iterator[Archive]:
    with path.open("rb") as file:
        begin = file.read(6)
    if begin != b"\x93NUMPY" and not zipfile.is_zipfile(path):
        raise ValueError(f"{path.stat().st_size} bytes that begin with {begin!r}, which is no zip archive")
    check_npz(path)
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
