"""Data sets of named arrays, in any format of `archive.Format`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stcore.data.images import ImageData, Splits
from stcore.data.pixels import count_classes
from stcore.data.readers.archive import IMAGES, LABELS, Arrays, Format, find, read_named
from stcore.data.readers.shards import NOTHING, PARTS, REQUIRED, Known, contents
from stcore.data.split import Validation, check_validation, three_parts
from stcore.errors import DataError


def load_named(place: Path, format: Format, validation: Validation) -> Splits:
    """Reads train, test and, if any, validation: one file each in a folder, or all of them in one archive.

    In a folder's files the images are named images, image, x or data, and the labels labels, label or y; in one
    archive each name includes its part: x_train, y_train, x_test, y_test, or train_images and so on. Images are
    (N, H, W, C) or (N, H, W), uint8 or floats in [0, 1]; labels are integers (N,) from 0.
    num_classes and class_names are optional. Without both, the number of classes is the largest label plus one.

    validation: None uses the set's validation part, or else holds out 2 % of train; a count or a fraction holds
        out that much; "test" selects on the test set.
    Raises DataError, with the file, if the files do not hold this; UsageError for a setting that does not fit.
    """
    check_validation(place, validation, own="validation" in _parts(place, format, PARTS))
    return three_parts(read_parts(place, format=format), validation=validation)


def read_parts(
    place: Path, parts: Sequence[str] = PARTS, known: Known = NOTHING, *, format: Format
) -> dict[str, ImageData]:
    """Reads these parts alone; see `load_named`."""
    whole = format.is_place(place)
    read = {
        part: read_named(path, format, part if whole else "")
        for part, path in _parts(place, format, parts).items()
    }
    num_classes, class_names = _classes(place, read, known)
    return {
        part: labelled(arrays, f"{part} of {place}", num_classes, class_names) for part, arrays in read.items()
    }


def labelled(
    arrays: Arrays, name: str, num_classes: int | None = None, class_names: tuple[str, ...] | None = None
) -> ImageData:
    """Checked data. Raises DataError if there are no labels, or as `ImageData.from_arrays` does."""
    if arrays.labels is None:
        raise DataError(f"{name}: expected an array of labels named {' or '.join(LABELS)}, received none; add it")
    return ImageData.from_arrays(arrays.images, arrays.labels, num_classes, name, class_names)


def largest_label(labels: npt.NDArray[Any]) -> int:
    """The largest label, or the last column of soft labels (N, C); -1 for what the later check rejects."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        return int(labels.shape[1]) - 1
    return int(labels.max()) if labels.dtype.kind in "iu" and labels.size else -1


def _parts(place: Path, format: Format, parts: Sequence[str]) -> dict[str, Path]:
    """Those of the parts that exist, and the archive of each."""
    suffix = format.suffix
    if format.is_place(place):
        with format.opened(place) as archive:
            files = {part: place for part in parts if find(archive, IMAGES, part) is not None}
            held, example = ", ".join(archive) or "no arrays", "x_{}"
    elif place.is_dir():
        files = {part: path for part in parts if (path := place / f"{part}.{suffix}").is_file()}
        held, example = contents(place), f"{{}}.{suffix}"
    else:
        raise DataError(f"expected {format.place}, received {str(place)!r}; check the path")
    for part in REQUIRED:
        if part in parts and part not in files:
            raise DataError(f"{place}: expected {example.format(part)}, received {held}; add it, or rename it")
    return files


def _classes(place: Path, read: Mapping[str, Arrays], known: Known) -> tuple[int | None, tuple[str, ...] | None]:
    """The number and the names of the classes that any part gives, if they agree; else by the largest label."""
    numbers = {arrays.num_classes for arrays in read.values()} - {None}
    names = {arrays.class_names for arrays in read.values()} - {None}
    if len(numbers) > 1 or len(names) > 1:
        raise DataError(
            f"{place}: expected one num_classes and one class_names, received different ones in "
            f"{', '.join(read)}; the parts of a data set must agree"
        )
    if not numbers and not names:
        labels = [arrays.labels for arrays in read.values() if arrays.labels is not None]
        if not labels:
            return None, None
        largest, images = max(map(largest_label, labels)), sum(map(np.size, labels))
        return max(count_classes(largest, images, place), known.num_classes), None
    return next(iter(numbers), None), next(iter(names), None)
