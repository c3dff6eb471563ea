"""Subjects of an analysis of checkpoints: named models on the same images, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stcore.data.batches import Batch
from stcore.data.rows import Images
from stcore.errors import DataError
from stcore.protocols import Array, Classifier


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, and the images on which it is analysed.

    name: as figures and tables show it.   method: that trained it, if known (`st`, `trades`, …).
    images: (N, H, W, C) or flat, uint8 or floating point in [0, 1], on the host.   labels: (N,).
    positions: (N,), indices of the images in their data set; an image's random numbers depend only on its index.
    batch_size: images per batch; results do not depend on it, up to rounding.   class_names: None for numbers.
    """

    name: str
    classifier: Classifier
    images: Images
    labels: Array
    positions: Array
    method: str | None = None
    batch_size: int = 250
    class_names: Sequence[str] | None = None

    def batches(self) -> Iterator[Batch]:
        """All images in order."""
        for first in range(0, len(self.labels), self.batch_size):
            here = slice(first, first + self.batch_size)
            yield Batch(self.images[here], self.labels[here], self.positions[here])

    def class_name(self, label: int) -> str:
        """The class's name, or its number if it has none."""
        return str(label) if self.class_names is None else str(self.class_names[label])


def on_same_images(subjects: Iterable[Subject]) -> Iterator[Subject]:
    """Yields the subjects. Raises DataError for one whose images or labels differ from the first one's."""
    first: Subject | None = None
    for subject in subjects:
        first = first or subject
        same = np.array_equal(first.labels, subject.labels)
        if not same or not np.array_equal(first.images[:], subject.images[:]):
            raise DataError(
                f"{subject.name}: expected the images and labels of {first.name}; received others. Models in one "
                "analysis need the same data set"
            )
        yield subject
