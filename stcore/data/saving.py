"""Saving of images and labels; a file is written completely or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stcore.base.files import replacing, writing
from stcore.data.images import ImageData, Splits
from stcore.data.pixels import to_labels, to_pixels
from stcore.errors import UsageError


def save_arrays(path: str | Path, images: npt.ArrayLike, labels: npt.ArrayLike, **more: npt.ArrayLike) -> None:
    """Writes an npz file of `images`, `labels` and `more`, uncompressed since photographs hardly shrink.

    path: of the file, which is written under a temporary name and then renamed.
    images, labels: as `ImageData.from_arrays` takes them; stored as uint8 (N, H, W, C) and int64 (N,).
    more: arrays of numbers or text, such as num_classes, class_names or a confidence per image.
    Raises DataError for arrays that do not fit, UsageError for an array of objects or a file that cannot be
    written.
    """
    path = Path(path)
    pixels = to_pixels(np.asarray(images), path.name)
    checked = to_labels(np.asarray(labels), len(pixels), path.name)
    arrays: dict[str, npt.NDArray[Any]] = {"images": pixels, "labels": checked}
    arrays |= {name: np.asarray(array) for name, array in more.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:  # numpy would pickle it
            raise UsageError(
                f"{path}: expected {name} as numbers or text, received {array.dtype}; give it another type"
            )
    savez: Any = np.savez  # its type stubs reserve some names of arrays
    with replacing(path) as file:
        savez(file, **arrays)


def save_npy(folder: str | Path, splits: Splits) -> None:
    """Writes the parts into a new or empty folder as `load_npy` reads them, in chunks of bounded memory.

    Raises UsageError if the folder has files or cannot be written, or if the training part is a stream.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UsageError(f"{folder}: expected a new or empty folder, received one with files; choose another")
    for part in ("train", "validation", "test"):
        data = getattr(splits, part)
        if isinstance(data, ImageData):
            _save_map(folder / f"{part}_images.npy", data)
            _save(folder / f"{part}_labels.npy", data.targets)
        elif data is not None:
            raise UsageError(
                f"{data.name}: expected data that can be indexed, received a stream; unpack its shards"
            )
    _save(folder / "num_classes.npy", np.array(splits.test.num_classes))
    if splits.test.class_names is not None:
        _save(folder / "class_names.npy", np.array(splits.test.class_names))


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    with replacing(path) as file:
        np.save(file, array, allow_pickle=False)


def _save_map(path: Path, data: ImageData) -> None:
    shape = len(data), *data.image_shape
    with replacing(path) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for images in data.chunks():
            file.write(np.ascontiguousarray(images).data)
