"""Archives of named arrays, shared by the npz, safetensors and npy readers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stcore.errors import DataError

IMAGES = ("images", "image", "x", "data")
LABELS = ("labels", "label", "y")

Archive = Mapping[str, npt.NDArray[Any]]  # arrays are read on access


class Format(NamedTuple):
    """A file format of named arrays."""

    suffix: str
    place: str  # the expected path, for error messages
    what: str  # the expected content, for error messages
    remedy: str  # what to do, for error messages
    open: Callable[[Path], AbstractContextManager[Archive]]  # raises any error for an invalid archive
    is_place: Callable[[Path], bool]  # whether a path is one archive with the arrays of all parts

    @contextmanager
    def opened(self, path: Path) -> Iterator[Archive]:
        """Opens an archive. Raises DataError for any error while its arrays are read."""
        try:
            with self.open(path) as archive:
                yield archive
        except DataError:
            raise
        except Exception as error:  # invalid bytes raise many kinds of errors, MemoryError too
            raise DataError(f"{path}: expected {self.what}, received: {error}; {self.remedy}") from error


class Lazy(Archive):
    """Named arrays, each read on access."""

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
    """The content of a file, of which only the names are checked so far."""

    images: npt.NDArray[Any]
    labels: npt.NDArray[Any] | None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None


def read_named(path: Path, format: Format, part: str = "") -> Arrays:
    """Reads one part of an archive without running any code in it.

    Raises DataError if the archive is invalid or has no images.
    """
    with format.opened(path) as archive:
        image, label = find(archive, IMAGES, part), find(archive, LABELS, part)
        if image is None:
            raise DataError(
                f"{path}: expected an array of images named {' or '.join(spelled(IMAGES, part))}, "
                f"received {', '.join(archive) or 'none at all'}; rename it"
            )
        return Arrays(
            np.asanyarray(archive[image]),  # keeps a memory map; converts the bytes of a member that is no array
            None if label is None else np.asarray(archive[label]),
            _num_classes(archive, path),
            _class_names(archive, path),
        )


def spelled(names: tuple[str, ...], part: str) -> list[str]:
    """The accepted names of an array: with the part before or after, or the plain names without a part."""
    if not part:
        return list(names)
    return [spelling for name in names for spelling in (f"{name}_{part}", f"{part}_{name}")]


def find(archive: Archive, names: tuple[str, ...], part: str) -> str | None:
    """The name of an array in the archive, or None."""
    return next((name for name in spelled(names, part) if name in archive), None)


def _num_classes(archive: Archive, path: Path) -> int | None:
    if "num_classes" not in archive:
        return None
    value = np.asarray(archive["num_classes"])
    if value.size != 1 or value.dtype.kind not in "iu":
        raise DataError(
            f"{path}: expected num_classes as one integer, received {value.dtype} of shape {value.shape}; "
            "correct it"
        )
    return int(value.item())


def _class_names(archive: Archive, path: Path) -> tuple[str, ...] | None:
    if "class_names" not in archive:
        return None
    names = np.asarray(archive["class_names"])
    if names.ndim != 1 or names.dtype.kind not in "SU":
        raise DataError(
            f"{path}: expected class_names as text of shape (K,), received {names.dtype} of shape {names.shape}; "
            "correct it"
        )
    return tuple(str(name) for name in names.astype(np.str_))
