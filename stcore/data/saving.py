"""Images and labels to an npz file, which is whole or not there."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stcore.data.images import to_labels, to_pixels
from stcore.errors import UsageError
from stcore.files import replacing


def save_arrays(path: str | Path, images: npt.ArrayLike, labels: npt.ArrayLike, **more: npt.ArrayLike) -> None:
    """Write `images`, `labels` and `more` under these names, not compressed: photographs hardly shrink.

    images, labels: as `ImageData.from_arrays` takes them; stored as uint8 (N, H, W, C) and int64 (N,).
    more: arrays of numbers or text, such as num_classes, class_names or a confidence per image.
    The file is written beside its place and moved there when complete.
    DataError for arrays that do not fit; UsageError for an array of objects, or where it cannot be written.
    """
    path = Path(path)
    pixels = to_pixels(np.asarray(images), path.name)
    marks = to_labels(np.asarray(labels), len(pixels), path.name)
    arrays: dict[str, npt.NDArray[Any]] = {"images": pixels, "labels": marks}
    arrays |= {name: np.asarray(array) for name, array in more.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject:  # numpy would pickle it
            raise UsageError(
                f"{path}: expected {name} as numbers or text, received {array.dtype}; give it another type"
            )
    savez: Any = np.savez  # by its types no name of an array is free
    with replacing(path) as file:
        savez(file, **arrays)
