"""Archives of arrays by name, and the images and labels in one; what npz, safetensors and npy share."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stcore.errors import DataError

IMAGES = ("images", "image", "x", "data")
LABELS = ("labels", "label", "y")

Archive = Mapping[str, npt.NDArray[Any]]  # each array is read when it is asked for


class Format(NamedTuple):
    """How a place's arrays are had by name."""

    suffix: str
    place: str  # where a set lies, for a message
    what: str  # what an archive is
    mend: str
    open: Callable[[Path], AbstractContextManager[Archive]]  # raises anything where it is none
    is_place: Callable[[Path], bool]  # whether all arrays of all parts are in one archive there

    @contextmanager
    def opened(self, place: Path) -> Iterator[Archive]:
        """The arrays by name; DataError for whatever goes wrong while they are read."""
        try:
            with self.open(place) as archive:
                yield archive
        except DataError:
            raise
        except Exception as error:  # foreign bytes make the readers raise many kinds, MemoryError too
            raise DataError(f"{place}: expected {self.what}, received: {error}; {self.mend}") from error


class Lazy(Archive):
    """Arrays by name, each read when it is asked for."""

    def __init__(self, names: Iterable[str], read: Callable[[str], npt.NDArray[Any]]) -> None:
        self._names, self._read = dict.fromkeys(names), read

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Arrays(NamedTuple):
    """What a file holds, before anything but its names is checked."""

    images: npt.NDArray[Any]
    labels: npt.NDArray[Any] | None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None


def read_named(path: Path, format: Format, part: str = "") -> Arrays:
    """One part of one archive; nothing in it is ever run. DataError if it is none, or has no images."""
    with format.opened(path) as archive:
        image, label = find(archive, IMAGES, part), find(archive, LABELS, part)
        if image is None:
            raise DataError(
                f"{path}: expected an array of images named {' or '.join(spelled(IMAGES, part))}, "
                f"received {', '.join(archive) or 'none at all'}; rename it"
            )
        return Arrays(
            np.asanyarray(archive[image]),  # bytes of a member that is no array; a memory map as it is
            None if label is None else np.asarray(archive[label]),
            _num_classes(archive, path),
            _class_names(archive, path),
        )


def spelled(names: tuple[str, ...], part: str) -> list[str]:
    if not part:
        return list(names)
    return [spelled for name in names for spelled in (f"{name}_{part}", f"{part}_{name}")]


def find(archive: Archive, names: tuple[str, ...], part: str) -> str | None:
    return next((name for name in spelled(names, part) if name in archive), None)


def _num_classes(archive: Archive, path: Path) -> int | None:
    if "num_classes" not in archive:
        return None
    given = np.asarray(archive["num_classes"])
    if given.size != 1 or given.dtype.kind not in "iu":
        raise DataError(
            f"{path}: expected num_classes as one integer, received {given.dtype} of shape {given.shape}; mend it"
        )
    return int(given.item())


def _class_names(archive: Archive, path: Path) -> tuple[str, ...] | None:
    if "class_names" not in archive:
        return None
    given = np.asarray(archive["class_names"])
    if given.ndim != 1 or given.dtype.kind not in "SU":
        raise DataError(
            f"{path}: expected class_names as text of shape (K,), received {given.dtype} of shape {given.shape}; "
            "mend it"
        )
    return tuple(str(name) for name in given.astype(np.str_))
