"""npy files as memory maps: images stay on disk and may be larger than memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stcore.data.images import Splits
from stcore.data.readers.archive import IMAGES, Archive, Format, Lazy, spelled
from stcore.data.readers.named import load_named
from stcore.data.readers.shards import PARTS
from stcore.data.split import Validation
from stcore.errors import DataError


def load_npy(folder: str | Path, *, validation: Validation = None) -> Splits:
    """Maps train_images.npy, train_labels.npy, test_images.npy, test_labels.npy and, if any, validation_….npy.

    Images are uint8 (N, H, W, C) or (N, H, W), read on access and never as a whole; a held-out part is a view.
    Labels are integers (N,). Do not change a file while it is in use.
    `validation`, other file names (images may be named x_train.npy, …) and errors are those of `load_npz`, with
    one file per array. Also raises DataError for images that are not uint8.
    """
    return load_named(Path(folder), NPY, validation)


def mapped(path: Path) -> Any:
    """The array of an npy file as a memory map. Raises DataError for anything else, a pickle among them."""
    try:
        array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.memmap):
            raise ValueError("an archive of arrays")
    except Exception as error:  # numpy raises many kinds of errors on invalid bytes
        raise DataError(
            f"{path}: expected a whole npy file of numbers or text, received: {error}; fetch it again, or "
            "write it by numpy.save"
        ) from error
    return array


@contextmanager
def _open(folder: Path) -> Iterator[Archive]:
    images = {name for part in PARTS for name in spelled(IMAGES, part)}

    def read(name: str) -> npt.NDArray[Any]:
        path = folder / f"{name}.npy"
        array: Any = mapped(path)
        if name not in images:
            return np.array(array)
        if array.dtype != np.uint8:
            raise DataError(
                f"{path}: expected images as uint8 in 0..255, since a memory map is not converted, received "
                f"{array.dtype}; save them as uint8, or use npz:PATH, which converts them in memory"
            )
        return array  # type: ignore[no-any-return]

    yield Lazy(sorted(path.stem for path in folder.glob("*.npy")), read)


NPY = Format(
    "npy",
    "a folder with train_images.npy, train_labels.npy, test_images.npy and test_labels.npy",
    "a folder of npy files",
    "check the path",
    _open,
    Path.is_dir,
)
