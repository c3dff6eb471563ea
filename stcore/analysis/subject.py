"""What an analysis of checkpoints looks at: models by name, one after the other, on the same images."""

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
    """A model, and the images that it is looked at on.

    name: what it is called in figure and table.   method: what trained it, if known (`st`, `trades`, …).
    images: (N, H, W, C), or flat, uint8 or floating in [0, 1], on the host.   labels: (N,).
    places: (N,), of the images in their data set: an image's random numbers depend on its place alone.
    batch_size: images at one time; but for rounding, no result depends on it.
    """

    name: str
    classifier: Classifier
    images: Images
    labels: Array
    places: Array
    method: str | None = None
    batch_size: int = 250
    class_names: Sequence[str] | None = None

    def batches(self) -> Iterator[Batch]:
        """All images in their order."""
        for first in range(0, len(self.labels), self.batch_size):
            here = slice(first, first + self.batch_size)
            yield Batch(self.images[here], self.labels[here], self.places[here])

    def called(self, label: int) -> str:
        """A class by its name, or its number where nobody named it."""
        return str(label) if self.class_names is None else str(self.class_names[label])


def on_same_images(subjects: Iterable[Subject]) -> Iterator[Subject]:
    """Each of them; DataError for one that is not looked at on the images of the first."""
    first: Subject | None = None
    for subject in subjects:
        first = first or subject
        same = np.array_equal(first.labels, subject.labels)
        if not same or not np.array_equal(first.images[:], subject.images[:]):
            raise DataError(
                f"{subject.name}: expected the images and labels of {first.name}, beside which it is to stand; "
                "received others. Analyse models side by side on one data set"
            )
        yield subject
