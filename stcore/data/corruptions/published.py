"""Published corrupted images: a folder of npy files as CIFAR-10-C is distributed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from stcore.data.readers.npy import mapped
from stcore.data.rows import Pixels
from stcore.errors import DataError
from stcore.protocols import Array

SEVERITIES = 5
LABELS = "labels.npy"


class Published:
    """The corrupted versions of a test split: NAME.npy for each corruption, and labels.npy.

    NAME.npy: uint8 (5 · N, H, W, C), or (5 · N, H, W), the N images at severity 1, then at 2, and so on; it stays
    on disk. labels.npy: integers (5 · N,).
    Raises DataError if the folder or a file is missing, or is of another form; no pickle is read.
    """

    def __init__(self, folder: str | Path, names: Sequence[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DataError(
                f"corrupted: expected a folder with {names[0]}.npy, … and {LABELS}, as CIFAR-10-C is distributed; "
                f"received {folder}. Check the path"
            )
        self._labels = np.array(self._map(LABELS))
        if self._labels.ndim != 1 or self._labels.dtype.kind not in "iu":
            raise DataError(
                f"{self.folder / LABELS}: expected integers (N,); received {self._labels.dtype} of shape "
                f"{self._labels.shape}. Fetch it again"
            )
        if not len(self._labels) or len(self._labels) % SEVERITIES:
            raise DataError(
                f"{self.folder / LABELS}: expected labels for {SEVERITIES} severities of the same images; "
                f"received {len(self._labels)}. Fetch it again"
            )
        self._images = {name: self._mapped_images(name) for name in names}

    def __repr__(self) -> str:
        """Its content, wherever it lies."""
        return f"Published({self.fingerprint})"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of the files' arrays."""
        digest = hashlib.sha256(np.ascontiguousarray(self._labels, "<i8").tobytes())
        for name, images in self._images.items():
            digest.update(f"{name} {images.shape}".encode())
            for begin in range(0, len(images), 1000):
                digest.update(np.ascontiguousarray(images[begin : begin + 1000]).data)
        return digest.hexdigest()

    def images(self, name: str, severity: int, positions: Array) -> Pixels:
        """The corrupted versions, uint8 (B, H, W, C), of the images at `positions` (B,) of the test split."""
        rows = self._images[name][self._rows(severity, positions)]
        return np.array(rows if rows.ndim == 4 else rows[..., None])

    def check(self, positions: Array, labels: Array, shape: Sequence[int]) -> None:
        """Raises DataError unless these are versions of the test images at `positions`.

        labels: (N,) of these.   shape: (H, W, C) of an image.
        """
        count = len(self._labels) // SEVERITIES
        if positions.max() >= count:
            raise DataError(
                f"{self.folder}: expected versions of at least {positions.max() + 1} images, as the test split "
                f"has; received {count}. Evaluate a --subset, or name the folder of this data set"
            )
        for severity in range(1, SEVERITIES + 1):
            wrong = np.flatnonzero(self._labels[self._rows(severity, positions)] != labels)
            if len(wrong):
                raise DataError(
                    f"{self.folder / LABELS}: expected the test split's labels in its order; of {len(labels)} at "
                    f"severity {severity}, {len(wrong)} differ. Evaluate on the data set that was corrupted"
                )
        for name in self._images:
            found = self.images(name, 1, positions[:1]).shape[1:]
            if found != tuple(shape):
                raise DataError(
                    f"{self.folder / name}.npy: expected images {tuple(shape)}, as the test split has; received "
                    f"{found}. Name the folder of this data set"
                )

    def _rows(self, severity: int, positions: Array) -> Array:
        return (severity - 1) * (len(self._labels) // SEVERITIES) + positions

    def _mapped_images(self, name: str) -> Array:
        images = self._map(f"{name}.npy")
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != len(self._labels):
            raise DataError(
                f"{self.folder / name}.npy: expected uint8 images (N, H, W, C), N = {len(self._labels)} as in "
                f"{LABELS}; received {images.dtype} of shape {images.shape}. Fetch it again"
            )
        return images

    def _map(self, name: str) -> Array:
        if not (self.folder / name).is_file():
            raise DataError(
                f"corrupted: expected {name} in {self.folder}; it is missing. Fetch it, or leave its corruption "
                "out, such as corruptions:fog+snow"
            )
        array: Array = mapped(self.folder / name)
        return array
