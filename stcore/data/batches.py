"""Batches of an epoch, a pure function of (seed, epoch)."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from stcore.base.seeding import Stream, generator
from stcore.data.augment import Augment, augmented, check_augment, draw
from stcore.data.crop_flip import CropFlip
from stcore.data.images import ImageData
from stcore.data.on_device import Fetch, OnDevice
from stcore.errors import UsageError


class Batch(NamedTuple):
    """Images, labels and positions of one batch of b examples."""

    images: Any  # uint8 (b, H, W, C) in memory of its own, or OnDevice for images kept on the device
    labels: npt.NDArray[Any]  # int64 (b,), or soft: float (b, C)
    positions: npt.NDArray[np.int64]  # (b,), positions in the order of this epoch; they select the training noise


class Epochs(Protocol):
    """The batches of each epoch, from any source."""

    def __len__(self) -> int:
        """Batches per epoch."""

    @property
    def examples(self) -> int:
        """Examples per epoch."""

    def epoch(self, epoch: int, *, start: int = 0) -> Generator[Batch, None, None]:
        """Yields the batches of one epoch, starting at batch `start` (to resume within it)."""


@dataclass(frozen=True, eq=False)
class Batches:
    """Batches of `data`, in a new order and with new augmentation at each epoch.

    augment: "none"; "flip", with probability one half; "crop-flip" zero-pads by 4 pixels, crops at random and
        flips; "crop-flip-cutout" also blacks out a random square of 14 / 32 of the side; "trivial-augment" also
        makes one of 14 operations; "random-resized-crop-flip" resizes a random box to the image's size, and flips.
    shuffle: False keeps the data's order at every epoch.
    drop_last: False keeps the short last batch, as the paper's recipe does; a last batch of one image, which has
        no batch statistics, joins the batch before it.
    fetch: selects and augments images that are kept on the device (see `stcore.data.resident`).
    Raises UsageError if a setting does not fit.
    """

    data: ImageData
    batch_size: int
    seed: int
    augment: Augment = "none"
    shuffle: bool = True
    drop_last: bool = False
    fetch: Fetch | None = None

    def __post_init__(self) -> None:
        check_settings(self.batch_size, self.augment, self.data.image_shape)
        if len(self) == 0:
            raise UsageError(
                f"expected a batch size of at most {len(self.data)} when the short last batch is dropped, "
                f"received {self.batch_size}: no batch would remain; make it smaller, or keep the last batch"
            )

    def __len__(self) -> int:
        """Batches per epoch."""
        return count_batches(len(self.data), self.batch_size, self.drop_last)

    @property
    def examples(self) -> int:
        """Examples per epoch: all of the data, without what `drop_last` drops."""
        return len(self) * self.batch_size if self.drop_last else len(self.data)

    def epoch(self, epoch: int, *, start: int = 0) -> Generator[Batch, None, None]:
        """Yields the batches of one epoch, starting at batch `start` (to resume within it)."""
        total = len(self.data)
        order = np.arange(total)
        if self.shuffle:
            order = generator(self.seed, Stream.ORDER, epoch=epoch).permutation(total)
        draws = draw(self.augment, self.seed, epoch, total, self.data.image_shape[:2])
        select = None if self.fetch is None else self.fetch(order, cast("CropFlip | None", draws))
        for rows in batch_slices(total, self.batch_size, start, self.drop_last):
            indices = order[rows]
            images: Any
            if select is None:
                images = augmented(self.data.images[indices], None if draws is None else draws.at(rows))
            else:
                images = OnDevice(select, rows)
            yield Batch(images, self.data.targets[indices], np.arange(rows.start, rows.stop))


def count_batches(total: int, batch_size: int, drop_last: bool = False) -> int:
    """The number of batches of `total` examples."""
    full, short = divmod(total, batch_size)
    if short == 1 and full:  # a single image has no batch statistics: it joins the batch before it
        return full
    return full + (short > 0 and not drop_last)


def batch_slices(total: int, batch_size: int, start: int = 0, drop_last: bool = False) -> Iterator[slice]:
    """The slice of each batch within `total` examples, starting at batch `start`."""
    count = count_batches(total, batch_size, drop_last)
    for number in range(start, count):
        last = number + 1 == count and not drop_last
        yield slice(number * batch_size, total if last else (number + 1) * batch_size)


def check_settings(batch_size: int, augment: str, shape: tuple[int, int, int]) -> None:
    """Raises UsageError for a batch size below 1, or an augmentation that images of this shape cannot have."""
    if batch_size < 1:
        raise UsageError(f"expected a batch size of at least 1, received {batch_size}; choose another")
    check_augment(augment, shape)


def in_order(data: ImageData, batch_size: int, rows: slice | None = None) -> Iterator[Batch]:
    """Yields batches of `data` (or of these rows) once, in order and without augmentation, for evaluation.

    Positions are indices into `data`.
    """
    first, last = (0, len(data)) if rows is None else (rows.start, rows.stop)
    for batch in batch_slices(last - first, batch_size):
        indices = np.arange(first + batch.start, first + batch.stop)
        yield Batch(data.images[indices], data.labels[indices], indices)
