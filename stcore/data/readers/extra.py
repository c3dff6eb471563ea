"""Extra images: pseudo-labelled, generated, or not labelled yet."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stcore.base.checks import did_you_mean
from stcore.data.images import ImageData
from stcore.data.pixels import count_classes, to_labels, to_pixels
from stcore.data.readers.archive import Arrays
from stcore.data.readers.named import labelled, largest_label
from stcore.data.readers.npz import read_npz
from stcore.data.readers.ti500k import read_ti500k
from stcore.errors import UsageError

KNOWN = "npz:FILE, ti500k:FILE"
READERS = {"npz": read_npz, "ti500k": read_ti500k}


class Unlabelled(NamedTuple):
    """Images to be labelled."""

    images: npt.NDArray[np.uint8]  # (N, H, W, C)
    labels: npt.NDArray[np.int64] | None  # (N,), of any range, or None if the file has none


def load_extra(spec: str) -> ImageData:
    """Loads extra data: `npz:FILE` (arrays named as in `load_npz`'s folders) or `ti500k:FILE` (the pickle of RST).

    The number of classes is the file's num_classes or class names, else the largest label plus one, which may be
    fewer than the labelled set has.
    Raises UsageError for another spec, DataError, with the file, if it lacks images or labels or they do not fit.
    """
    arrays, name = _read(spec)
    num_classes = arrays.num_classes
    if num_classes is None and arrays.class_names is None and arrays.labels is not None:
        found = count_classes(largest_label(arrays.labels), arrays.labels.size, name)
        num_classes = max(2, found)  # all may be of one class
    return labelled(arrays, name, num_classes, arrays.class_names)


def load_unlabelled(spec: str) -> Unlabelled:
    """Loads images to be labelled from a spec of `load_extra`, with labels only if the file has them.

    Raises UsageError for another spec, DataError, with the file, if it has no images.
    """
    arrays, name = _read(spec)
    images = to_pixels(arrays.images, name)
    return Unlabelled(images, None if arrays.labels is None else to_labels(arrays.labels, len(images), name))


def _read(spec: str) -> tuple[Arrays, str]:
    kind, _, place = spec.partition(":")
    if kind not in READERS or not place:
        hint = did_you_mean(kind, READERS)
        raise UsageError(f"expected extra data of the form {KNOWN}, received {spec!r}; choose one of them{hint}")
    return READERS[kind](Path(place)), place
