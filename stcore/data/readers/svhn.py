"""SVHN's cropped digits (Netzer et al., 2011) as published, in MATLAB files."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stcore.base.declared import check_expansion
from stcore.data.images import ImageData, Splits
from stcore.data.readers.shards import NOTHING, REQUIRED, Known, contents
from stcore.data.split import Validation, three_parts
from stcore.errors import DataError

SHAPE = (32, 32, 3)
_BYTES = {"uint8": 1, "int8": 1, "logical": 1, "char": 2, "uint16": 2, "int16": 2, "uint32": 4, "single": 4}


def load_svhn(folder: str | Path, *, validation: Validation = None) -> Splits:
    """Reads SVHN: 73257 train and 26032 test images, uint8 (N, 32, 32, 3), 10 classes; class 0 is the digit 0.

    folder: contains train_32x32.mat and test_32x32.mat. (extra_32x32.mat is not used.)
    validation: None holds out 2 % of train; a count or a fraction holds out that much; "test" selects on the test
        set.
    Raises DataError, with the file, if one is missing, damaged, or not in the published format.
    """
    return three_parts(read_svhn(Path(folder)), validation=validation)


def read_svhn(folder: Path, parts: Sequence[str] = REQUIRED, known: Known = NOTHING) -> dict[str, ImageData]:
    """Reads these parts alone; see `load_svhn`."""
    if not folder.is_dir():
        raise DataError(
            f"expected a folder with train_32x32.mat and test_32x32.mat, received {str(folder)!r}; check the path"
        )
    return {part: _read(folder, part) for part in parts}


def _read(folder: Path, part: str) -> ImageData:
    path = folder / f"{part}_32x32.mat"
    if not path.is_file():
        raise DataError(
            f"{folder}: expected {path.name}, received {contents(folder)}; name the folder that holds it"
        )
    found = _load(path)
    for key in ("X", "y"):
        if key not in found:
            raise DataError(f"{path}: expected X and y, received no {key}; fetch the cropped digits (format 2)")
    images, digits = np.asarray(found["X"]), np.asarray(found["y"])
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != SHAPE:
        raise DataError(
            f"{path}: expected X as uint8 of shape (32, 32, 3, N), received {images.dtype} of shape "
            f"{images.shape}; fetch the cropped digits (format 2)"
        )
    if digits.dtype.kind not in "iuf" or digits.shape not in ((images.shape[3], 1), (1, images.shape[3])):
        raise DataError(
            f"{path}: expected y as numbers of shape ({images.shape[3]}, 1), received {digits.dtype} of shape "
            f"{digits.shape}; fetch it again"
        )
    labels = digits.ravel()
    wrong = np.flatnonzero(~np.isin(labels, np.arange(1, 11)))
    if wrong.size:
        raise DataError(
            f"{path}: expected labels 1 to 10, where 10 is the digit 0, received {labels[wrong[0]]} at position "
            f"{wrong[0]} ({wrong.size} in all); fetch it again"
        )
    return ImageData.from_arrays(
        np.ascontiguousarray(images.transpose(3, 0, 1, 2)),
        labels.astype(np.int64) % 10,
        10,
        f"{part} of {folder}",
        [str(digit) for digit in range(10)],
    )


def _load(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat, whosmat

    try:
        sizes = [math.prod(shape) * _BYTES.get(kind, 8) for _, shape, kind in whosmat(path)]
        check_expansion(path, sum(sizes), path.stat().st_size)
        found: dict[str, Any] = loadmat(path, variable_names=["X", "y"])
        return found
    except (MemoryError, DataError):
        raise
    except Exception as error:  # scipy raises many kinds of errors on invalid bytes
        raise DataError(f"{path}: expected a whole MATLAB 5 file, received: {error}; fetch it again") from error
