"""Data sets: uint8 images with labels, and their train, validation and test parts."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stcore.data.pixels import check_classes, count_classes, to_pixels, to_targets
from stcore.data.rows import Pixels, Rows
from stcore.data.streams.dataset import StreamData
from stcore.errors import DataError

CHUNK = 1 << 24  # bytes per chunk of a pass over all images


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled images. Build it by `from_arrays`, which checks its arguments; the constructor does not.

    images: uint8 (N, H, W, C), values 0..255; the model sees images / 255. An array, or `Rows` of a memory map,
        which read only what is indexed.
    labels: int64 (N,), each in [0, num_classes).
    class_names: one name per class, or None if unknown.
    soft_labels: class probabilities (N, num_classes), which training takes in place of the labels; these are their
        likeliest classes, which evaluations take. None if there are none.
    files: (N,) the file of each image, relative to the set's folder; None if they are not read from files.
    left_out: why images of the part that this one is of were left out, each with its file.
    """

    images: Pixels | Rows
    labels: npt.NDArray[np.int64]
    num_classes: int
    name: str
    class_names: tuple[str, ...] | None = None
    soft_labels: npt.NDArray[np.floating[Any]] | None = None
    files: npt.NDArray[np.str_] | None = None
    left_out: tuple[str, ...] = ()

    @classmethod
    def from_arrays(
        cls,
        images: npt.ArrayLike,
        labels: npt.ArrayLike,
        num_classes: int | None = None,
        name: str = "arrays",
        class_names: Sequence[str] | None = None,
    ) -> Self:
        """Checks and converts arrays.

        images: (N, H, W, C) or (N, H, W), uint8 in 0..255 or floats in [0, 1], rounded to multiples of 1/255.
            A numpy.memmap of uint8 stays on disk.
        labels: (N,) or (N, 1) integers in [0, num_classes), or class probabilities (N, num_classes); one-hot rows
            become integers.
        num_classes: at least 2; by default the number of class names or of a label's probabilities, else the
            largest label plus one.
        name: names the data in errors and reports.
        Raises DataError if shapes, dtypes, ranges or counts do not fit.
        """
        pixels = to_pixels(np.asarray(images), name)
        targets = to_targets(np.array(labels), len(pixels), name)
        checked, soft = (targets, None) if targets.ndim == 1 else (targets.argmax(axis=1), targets)
        names = None if class_names is None else tuple(class_names)
        if soft is not None:
            num_classes = soft.shape[1] if num_classes is None else num_classes
            if soft.shape[1] != num_classes:
                raise DataError(
                    f"{name}: expected labels of shape (N,) or (N, {num_classes}), received {soft.shape}; give "
                    "each class a column"
                )
            soft = None if (soft.max(axis=1) == 1).all() else soft  # one-hot
        if num_classes is None:
            num_classes = count_classes(int(checked.max()), len(checked), name) if names is None else len(names)
        check_classes(num_classes, name)
        if names is not None and len(names) != num_classes:
            raise DataError(
                f"{name}: expected {num_classes} class names, received {len(names)}; give one per class"
            )
        wrong = np.flatnonzero((checked < 0) | (checked >= num_classes))
        if wrong.size:
            raise DataError(
                f"{name}: expected labels in [0, {num_classes}), received {checked[wrong[0]]} at position "
                f"{wrong[0]} ({wrong.size} in all); renumber the classes from 0 (a hub's hidden test labels "
                "are -1: such a test set cannot be used)"
            )
        on_disk = isinstance(images, np.memmap) and images.dtype == np.uint8
        return cls(Rows(pixels) if on_disk else pixels, checked, num_classes, name, names, soft)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @property
    def targets(self) -> npt.NDArray[Any]:
        """What training takes: the soft labels (N, C) if there are some, else the labels (N,)."""
        return self.labels if self.soft_labels is None else self.soft_labels

    def class_counts(self) -> npt.NDArray[np.int64]:
        """The number of images of each class, int64 (num_classes,)."""
        return np.bincount(self.labels, minlength=self.num_classes)

    def subset(self, indices: npt.ArrayLike) -> Self:
        """The examples at `indices` (k,), in that order: a copy, or a view of a memory map.

        Raises DataError if `indices` is empty.
        """
        selected = np.asarray(indices)
        if selected.size == 0:
            raise DataError(f"{self.name}: expected a subset of at least 1 example, received none; keep some")
        return self._at(selected)

    def head(self, n: int) -> Self:
        """The first `n` examples, without a copy. Raises DataError unless 1 <= n <= len(self)."""
        if not 1 <= n <= len(self):
            raise DataError(
                f"{self.name}: expected a head of 1 to {len(self)} examples, received {n}; ask for fewer"
            )
        return self._at(slice(n))

    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of images, labels and shape, computed once; it does not depend on the name."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.images.shape} {self.num_classes}".encode())
        for images in self.chunks():
            digest.update(np.ascontiguousarray(images).data)
        digest.update(np.ascontiguousarray(self.labels, "<i8").data)
        if self.soft_labels is not None:
            digest.update(np.ascontiguousarray(self.soft_labels, "<f8").data)
        return digest.hexdigest()

    def chunks(self) -> Iterator[Pixels]:
        """Yields all images in order, uint8 (n, H, W, C), in chunks of at most `CHUNK` bytes (or one image)."""
        step = max(1, CHUNK // math.prod(self.image_shape))
        for begin in range(0, len(self), step):
            yield self.images[begin : begin + step]

    def _at(self, index: Any) -> Self:
        images = self.images.take(index) if isinstance(self.images, Rows) else self.images[index]
        soft = None if self.soft_labels is None else self.soft_labels[index]
        files = None if self.files is None else self.files[index]
        return dataclasses.replace(self, images=images, labels=self.labels[index], soft_labels=soft, files=files)


@dataclass(frozen=True)
class LoaderData:
    """What is known of a loader's images without reading all of them.

    image_shape: (H, W, C) of the first batch, which all must have.   examples: in an epoch, as far as the loader
    says; otherwise its number of batches times the size of the first.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    name: str
    examples: int
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return self.examples

    def fingerprint(self) -> None:
        """None: the images may be augmented anew in each epoch."""


TrainingImages = ImageData | StreamData | LoaderData
"""What can be trained on."""


@dataclass(frozen=True, eq=False)
class Splits:
    """The parts of a data set: train on the first, select the epoch on the second, report on the third.

    train: images in memory or a memory map, a stream, or a user's loader.   validation: None if a stream has none.
    Raises DataError unless all parts have one image shape and one number of classes.
    """

    train: TrainingImages
    validation: ImageData | None
    test: ImageData

    def __post_init__(self) -> None:
        for other in (self.test,) if self.validation is None else (self.validation, self.test):
            for what in ("image_shape", "num_classes"):
                expected, received = getattr(self.train, what), getattr(other, what)
                if expected != received:
                    raise DataError(
                        f"{other.name}: expected {what} {expected} as in {self.train.name}, "
                        f"received {received}; the parts of a data set must agree"
                    )
