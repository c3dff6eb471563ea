"""Checks and conversion of user arrays: images to uint8, labels to int64 or floats; the number of classes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from stcore.errors import DataError

FEW_CLASSES, MOST_CLASSES = 1000, 1_000_000
"""Classes that any set may have, and that a large one may have."""


def to_pixels(images: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """Checks images and converts them to uint8 (N, H, W, C); arguments and errors as `ImageData.from_arrays`."""
    checked = check_images(images, name)
    return checked if checked.dtype == np.uint8 else np.rint(checked * 255).astype(np.uint8)


def check_images(images: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """The images (N, H, W, C) with their dtype, uint8 or floating; arguments and errors as in `to_pixels`."""
    if images.ndim not in (3, 4):
        raise DataError(
            f"{name}: expected images of shape (N, H, W, C) or (N, H, W), received shape {images.shape}; "
            "reshape flat rows to height and width"
        )
    if images.size == 0:
        raise DataError(
            f"{name}: expected at least one image, received an empty array of shape {images.shape}; "
            "check where it was read from"
        )
    if images.ndim == 3:
        images = images[..., None]
    elif images.shape[1] in (1, 3) and images.shape[-1] not in (1, 3):
        raise DataError(
            f"{name}: expected channels last (N, H, W, C), received shape {images.shape}, which looks like "
            "channels first; give images.transpose(0, 2, 3, 1)"
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise DataError(
            f"{name}: expected images as uint8 in 0..255 or floats in [0, 1], received {images.dtype}; "
            "if they hold 0..255, give images.astype(np.uint8)"
        )
    low, high = images.min(), images.max()
    if not np.isfinite([low, high]).all():  # min and max propagate NaN
        raise DataError(f"{name}: expected finite pixels, received NaN or infinity; clean the images first")
    if low < 0 or high > 1:
        mistake = (
            "they look normalised by a mean and a standard deviation: give the raw pixels, "
            "normalisation is a layer of the model"
            if low < 0
            else "they look like 0..255 held as floats: divide by 255, or give uint8"
        )
        raise DataError(f"{name}: expected float images in [0, 1], received {low:g} to {high:g}; {mistake}")
    return images


def unit_interval(images: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Host pixels in the model's floating dtype: uint8 0..255 becomes [0, 1]; floats keep their values.

    Classifiers convert by this function too, so that host and device see the same numbers, bit for bit.
    """
    floats = images.astype(dtype, copy=False)
    return floats / floats.dtype.type(255) if images.dtype == np.uint8 else floats


def to_labels(labels: npt.NDArray[Any], count: int, name: str) -> npt.NDArray[np.int64]:
    """Checks labels and converts them to int64 (count,), of any range; errors as `ImageData.from_arrays`."""
    if labels.ndim != 1:
        raise DataError(
            f"{name}: expected labels of shape (N,), received {labels.shape}; "
            "give labels.reshape(-1), or of one-hot labels the argmax(axis=1)"
        )
    if len(labels) != count:
        raise DataError(
            f"{name}: expected one label per image, received {len(labels)} labels for {count} images; "
            "check that both come from the same file"
        )
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{name}: expected integer labels, received {labels.dtype}; number the classes from 0 "
            "and give labels.astype(np.int64)"
        )
    return labels.astype(np.int64, copy=False)


SUM_ROUNDED = 1e-3
"""The probabilities of a soft label sum to one up to this."""


def to_targets(labels: npt.NDArray[Any], count: int, name: str) -> npt.NDArray[Any]:
    """Checks labels, and converts them to int64 (count,), or to floats (count, C) if they are one-hot or soft.

    labels: integers (count,) or (count, 1) of any range, or class probabilities (count, C), C at least 2.
    Errors as `ImageData.from_arrays`.
    """
    if labels.ndim != 2 or labels.shape[1] == 1:
        return to_labels(labels.reshape(-1) if labels.shape[1:] == (1,) else labels, count, name)
    if len(labels) != count or labels.dtype.kind not in "biuf":
        raise DataError(
            f"{name}: expected one-hot or soft labels as numbers of shape ({count}, C), one row per image, "
            f"received {labels.dtype} of shape {labels.shape}"
        )
    soft = labels.astype(np.result_type(labels.dtype, np.float32) if labels.dtype.kind == "f" else np.float32)
    sums = soft.sum(axis=1, dtype=np.float64)
    if not (soft.min() >= 0 and np.abs(sums - 1).max() <= SUM_ROUNDED):
        raise DataError(
            f"{name}: expected labels (N, C) as class probabilities: at least 0, and rows that sum to 1, received "
            f"entries from {soft.min():g}, sums from {sums.min():g} to {sums.max():g}; divide each row by its sum"
        )
    return soft


def as_soft(labels: npt.NDArray[Any], num_classes: int) -> npt.NDArray[np.float64]:
    """Soft labels (B, num_classes) in float64: one-hot rows of integers (B,), or those given, (B, C)."""
    rows = np.zeros((len(labels), num_classes))
    if labels.ndim == 2:
        rows[:, : labels.shape[1]] = labels
    else:
        rows[np.arange(len(labels)), labels] = 1
    return rows


def count_classes(largest: int, images: int, origin: object) -> int:
    """The number of classes of labels that nobody counted or named: the largest plus one.

    images: of all parts together.   origin: names the data in the error.
    Raises DataError for a label beyond the number of images, unless it is small: it is a mistake, or no label.
    """
    if largest >= max(FEW_CLASSES, images):
        raise DataError(
            f"{origin}: expected labels below the number of images ({images}), or below {FEW_CLASSES}, received "
            f"{largest}; number the classes from 0, or give their names or their number in the data"
        )
    return largest + 1


def check_classes(count: int, origin: object) -> None:
    """Raises DataError unless there are 2 to `MOST_CLASSES` classes."""
    if not 2 <= count <= MOST_CLASSES:
        why = "a classifier needs a choice" if count < 2 else f"there may be {MOST_CLASSES}"
        raise DataError(f"{origin}: expected at least 2 classes, received {count}; {why}")
