"""The 500000 pseudo-labelled Tiny Images of robust self-training (Carmon et al., 2019), as published."""

from pathlib import Path

import numpy as np

from stcore.data.readers.archive import Arrays
from stcore.data.readers.named import labelled
from stcore.data.readers.safe_pickle import load_dict
from stcore.data.saving import save_arrays
from stcore.errors import DataError

IMAGES, LABELS = "data", "extrapolated_targets"
CLASSES = 10  # CIFAR-10's


def read_ti500k(path: Path) -> Arrays:
    """Reads the pickle's images, uint8 (N, 32, 32, 3), and pseudo-labels, if any, without running code in it.

    Raises DataError if the file is not such a pickle.
    """
    try:
        with path.open("rb") as stream:
            found = load_dict(stream, str(path))
    except OSError as error:
        raise DataError(
            f"expected the pickle of pseudo-labelled images, received {str(path)!r}, which cannot be read "
            f"({error.strerror}); check the path"
        ) from error
    images = found.get(IMAGES)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
        received = f"{images.dtype} of shape {images.shape}" if isinstance(images, np.ndarray) else "no array"
        raise DataError(
            f"{path}: expected {IMAGES!r} as uint8 of shape (N, 32, 32, 3), received {received}; "
            "check which file this is"
        )
    if LABELS not in found:
        return Arrays(images, None, CLASSES)
    try:
        return Arrays(images, np.asarray(found[LABELS]), CLASSES)
    except ValueError as error:
        raise DataError(f"{path}: expected {LABELS!r} as integers, received: {error}; fetch it again") from error


def convert_ti500k(pickle: str | Path, npz: str | Path) -> None:
    """Converts the pickle to an npz file, which needs no unpickling: `load_extra("npz:…")`.

    pickle: of Carmon et al. (2019).   npz: the path to write.
    Raises DataError if the pickle is invalid or has no labels, UsageError if the npz file cannot be written.
    """
    data = labelled(read_ti500k(Path(pickle)), str(pickle), CLASSES)
    save_arrays(npz, data.images, data.labels, num_classes=CLASSES)
