"""Images and labels from numpy's npz files."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stcore.data.images import ImageData, Splits
from stcore.data.parts import Validation, check_validation, three_parts
from stcore.data.shards import PARTS, contents
from stcore.errors import DataError

IMAGES = ("images", "image", "x", "data")
LABELS = ("labels", "label", "y")


class Arrays(NamedTuple):
    """What a file holds, before anything but its names is checked."""

    images: npt.NDArray[Any]
    labels: npt.NDArray[Any] | None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None


def load_npz(place: str | Path, *, validation: Validation = None) -> Splits:
    """Read train.npz, test.npz and, if any, validation.npz of a folder, or one file with all parts.

    In a folder's files the images are named images, image, x or data, and the labels labels, label or y; in one
    file each with its part: x_train, y_train, x_test, y_test, or train_images and so on. They are as
    `ImageData.from_arrays` takes them: NHWC, uint8 or floats in [0, 1]; labels are integers from 0.
    Optional beside them: num_classes, class_names. Without both, the largest label says how many classes.

    validation: as `three_parts` takes it; by default the set's own validation part, else 2 % of train.
    DataError, with the file, if the files do not hold this; UsageError for a setting that does not fit.
    """
    place = Path(place)
    files = _parts(place)
    check_validation(place, validation, own="validation" in files)
    read = {part: read_npz(path, "" if place.is_dir() else part) for part, path in files.items()}
    num_classes, class_names = _classes(place, read)
    parts = {
        part: labelled(arrays, f"{part} of {place}", num_classes, class_names) for part, arrays in read.items()
    }
    return three_parts(parts["train"], parts["test"], validation=validation, own=parts.get("validation"))


def read_npz(path: Path, part: str = "") -> Arrays:
    """One part of one file; nothing in it is ever run. DataError if it is none, or has no images."""
    with _opened(path) as archive:
        image, label = _find(archive.files, IMAGES, part), _find(archive.files, LABELS, part)
        if image is None:
            raise DataError(
                f"{path}: expected an array of images named {' or '.join(_spelled(IMAGES, part))}, "
                f"received {', '.join(archive.files) or 'none at all'}; rename it"
            )
        return Arrays(
            _array(archive, image),
            None if label is None else _array(archive, label),
            _num_classes(archive, path),
            _class_names(archive, path),
        )


def labelled(
    arrays: Arrays, name: str, num_classes: int | None = None, class_names: tuple[str, ...] | None = None
) -> ImageData:
    """The checked data; DataError if there are no labels, or for what `ImageData.from_arrays` refuses."""
    if arrays.labels is None:
        raise DataError(f"{name}: expected an array of labels named {' or '.join(LABELS)}, received none; add it")
    return ImageData.from_arrays(arrays.images, arrays.labels, num_classes, name, class_names)


def _parts(place: Path) -> dict[str, Path]:
    """The parts there are, and the file of each."""
    if place.is_dir():
        files = {part: place / f"{part}.npz" for part in PARTS if (place / f"{part}.npz").is_file()}
        held, example = contents(place), "{}.npz"
    elif place.is_file():
        with _opened(place) as archive:
            files = {part: place for part in PARTS if _find(archive.files, IMAGES, part) is not None}
            held, example = ", ".join(archive.files) or "no arrays", "x_{}"
    else:
        raise DataError(
            f"expected a folder with train.npz and test.npz, or one npz file, received {str(place)!r}; "
            "check the path"
        )
    for part in ("train", "test"):
        if part not in files:
            raise DataError(f"{place}: expected {example.format(part)}, received {held}; add it, or rename it")
    return files


def _classes(place: Path, read: Mapping[str, Arrays]) -> tuple[int | None, tuple[str, ...] | None]:
    """What any of the parts says of the classes, if they agree; else what the largest label says."""
    numbers = {arrays.num_classes for arrays in read.values()} - {None}
    names = {arrays.class_names for arrays in read.values()} - {None}
    if len(numbers) > 1 or len(names) > 1:
        raise DataError(
            f"{place}: expected one num_classes and one class_names, received different ones in "
            f"{', '.join(read)}; the parts of a data set must agree"
        )
    if not numbers and not names:
        labels = [arrays.labels for arrays in read.values() if arrays.labels is not None]
        return max((largest_label(each) + 1 for each in labels), default=None), None
    return next(iter(numbers), None), next(iter(names), None)


def largest_label(labels: npt.NDArray[Any]) -> int:
    """Of integers; -1 of anything else, which is refused where the labels are checked."""
    return int(labels.max()) if labels.dtype.kind in "iu" and labels.size else -1


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        archive: Any = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("a single array, without a name")
        with archive:
            yield archive
    except DataError:
        raise
    except Exception as error:  # foreign bytes make zipfile and numpy raise many kinds, MemoryError too
        raise DataError(
            f"{path}: expected a whole npz file of numbers and text, received: {error}; "
            "fetch it again, or write it by numpy.savez"
        ) from error


def _spelled(names: tuple[str, ...], part: str) -> list[str]:
    if not part:
        return list(names)
    return [spelled for name in names for spelled in (f"{name}_{part}", f"{part}_{name}")]


def _find(files: list[str], names: tuple[str, ...], part: str) -> str | None:
    return next((name for name in _spelled(names, part) if name in files), None)


def _array(archive: Any, name: str) -> npt.NDArray[Any]:
    return np.asarray(archive[name])  # of a member that is no array it gives the bytes


def _num_classes(archive: Any, path: Path) -> int | None:
    if "num_classes" not in archive.files:
        return None
    given = _array(archive, "num_classes")
    if given.size != 1 or given.dtype.kind not in "iu":
        raise DataError(
            f"{path}: expected num_classes as one integer, received {given.dtype} of shape {given.shape}; mend it"
        )
    return int(given.item())


def _class_names(archive: Any, path: Path) -> tuple[str, ...] | None:
    if "class_names" not in archive.files:
        return None
    given = _array(archive, "class_names")
    if given.ndim != 1 or given.dtype.kind not in "SU":
        raise DataError(
            f"{path}: expected class_names as text of shape (K,), received {given.dtype} of shape {given.shape}; "
            "mend it"
        )
    return tuple(str(name) for name in given.astype(np.str_))
