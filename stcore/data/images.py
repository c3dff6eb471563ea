"""What a data set is: uint8 images with integer labels, and its three parts."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stcore.errors import DataError


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled images. Build it by `from_arrays`, which checks; the bare constructor trusts its arguments.

    images: uint8 (N, H, W, C), values 0..255; the model sees images / 255.
    labels: int64 (N,), each in [0, num_classes).
    class_names: one name per class, or None where nobody named them.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    num_classes: int
    name: str
    class_names: tuple[str, ...] | None = None

    @classmethod
    def from_arrays(
        cls,
        images: npt.ArrayLike,
        labels: npt.ArrayLike,
        num_classes: int | None = None,
        name: str = "arrays",
        class_names: Sequence[str] | None = None,
    ) -> Self:
        """Check and convert. Raises DataError, which says what was expected, what came and how to mend it.

        images: (N, H, W, C) or (N, H, W), uint8 in 0..255 or floating in [0, 1], which is rounded to 1/255.
        labels: (N,) integers in [0, num_classes).
        num_classes: at least 2; by default the number of class names, else the largest label plus one.
        """
        pixels = to_pixels(np.asarray(images), name)
        marks = to_labels(np.asarray(labels), len(pixels), name)
        names = None if class_names is None else tuple(class_names)
        if num_classes is None:
            num_classes = int(marks.max()) + 1 if names is None else len(names)
        if num_classes < 2:
            raise DataError(
                f"{name}: expected at least 2 classes, received {num_classes}; a classifier needs a choice"
            )
        if names is not None and len(names) != num_classes:
            raise DataError(
                f"{name}: expected {num_classes} class names, received {len(names)}; give one per class"
            )
        wrong = np.flatnonzero((marks < 0) | (marks >= num_classes))
        if wrong.size:
            raise DataError(
                f"{name}: expected labels in [0, {num_classes}), received {marks[wrong[0]]} at position "
                f"{wrong[0]} ({wrong.size} in all); renumber the classes from 0 (a hub's hidden test labels "
                "are -1: such a test set cannot be used)"
            )
        return cls(pixels, marks, num_classes, name, names)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def subset(self, indices: npt.ArrayLike) -> Self:
        """The examples at `indices`, in that order, as copies; DataError when there are none."""
        chosen = np.asarray(indices)
        if chosen.size == 0:
            raise DataError(f"{self.name}: expected a subset of at least 1 example, received none; keep some")
        return dataclasses.replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def head(self, n: int) -> Self:
        """The first `n` examples, without a copy; DataError unless 1 <= n <= len(self)."""
        if not 1 <= n <= len(self):
            raise DataError(
                f"{self.name}: expected a head of 1 to {len(self)} examples, received {n}; ask for fewer"
            )
        return dataclasses.replace(self, images=self.images[:n], labels=self.labels[:n])

    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of images, labels and their shape: the same data, whatever its name."""
        digest = hashlib.sha256(f"{self.images.shape} {self.num_classes}".encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels, "<i8").data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Splits:
    """Train on the first, choose the epoch on the second, report on the third. All have one shape and one set
    of classes, or DataError."""

    train: ImageData
    validation: ImageData
    test: ImageData

    def __post_init__(self) -> None:
        for other in (self.validation, self.test):
            for what in ("image_shape", "num_classes"):
                expected, received = getattr(self.train, what), getattr(other, what)
                if expected != received:
                    raise DataError(
                        f"{other.name}: expected {what} {expected} as in {self.train.name}, "
                        f"received {received}; the parts of a data set must agree"
                    )


def to_pixels(images: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """uint8 (N, H, W, C), as `ImageData.from_arrays` takes them, or its DataError."""
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
    if not np.isfinite([low, high]).all():  # min and max pass NaN on
        raise DataError(f"{name}: expected finite pixels, received NaN or infinity; clean the images first")
    if low < 0 or high > 1:
        mistake = (
            "they look normalised by a mean and a standard deviation: give the raw pixels, "
            "normalisation is a layer of the model"
            if low < 0
            else "they look like 0..255 held as floats: divide by 255, or give uint8"
        )
        raise DataError(f"{name}: expected float images in [0, 1], received {low:g} to {high:g}; {mistake}")
    scaled: npt.NDArray[np.uint8] = np.rint(images * 255).astype(np.uint8)
    return scaled


def to_labels(labels: npt.NDArray[Any], count: int, name: str) -> npt.NDArray[np.int64]:
    """int64 (count,) of any range, as `ImageData.from_arrays` takes them, or its DataError."""
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
