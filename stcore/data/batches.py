"""The batches of an epoch, a function of (seed, epoch) alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from stcore.base.seeding import Stream, generator
from stcore.data.augment import AUGMENT, Augment, augmented, draw
from stcore.data.images import ImageData
from stcore.data.on_device import Fetch, OnDevice
from stcore.errors import UsageError


class Batch(NamedTuple):
    images: Any  # uint8 (b, H, W, C), the batch's own memory; or OnDevice, of images that live there
    labels: npt.NDArray[np.int64]  # (b,)
    positions: npt.NDArray[np.int64]  # (b,), places in this epoch's order: what addresses the training noise


class Epochs(Protocol):
    """The batches of each epoch, wherever they come from."""

    def __len__(self) -> int:
        """Batches per epoch."""

    @property
    def examples(self) -> int:
        """Examples per epoch."""

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch `start` on (to resume within it)."""


@dataclass(frozen=True, eq=False)
class Batches:
    """Batches of `data`, in a new order and with new augmentation at each epoch.

    augment: "none", or "crop-flip": zero-pad by 4, crop at random, mirror with probability one half; or
        "crop-flip-cutout": then also a black square of 14 / 32 of the side, at random.
    shuffle: False keeps the data's order at every epoch.
    drop_last: False keeps the short last batch, as the paper's recipe does; one of a single image, which has no
        batch statistics, joins the batch before it.
    fetch: chooses and augments the images on the device, where they live (see `stcore.data.resident`).
    UsageError if a setting does not fit.
    """

    data: ImageData
    batch_size: int
    seed: int
    augment: Augment = "none"
    shuffle: bool = True
    drop_last: bool = False
    fetch: Fetch | None = None

    def __post_init__(self) -> None:
        check_settings(self.batch_size, self.augment)
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
        """Examples per epoch: all of the data, but for what `drop_last` drops."""
        return len(self) * self.batch_size if self.drop_last else len(self.data)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch `start` on (to resume within it)."""
        total = len(self.data)
        order = np.arange(total)
        if self.shuffle:
            order = generator(self.seed, Stream.ORDER, epoch=epoch).permutation(total)
        draws = draw(self.augment, self.seed, epoch, total)
        for where in cut(total, self.batch_size, start, self.drop_last):
            chosen, drawn = order[where], None if draws is None else draws.at(where)
            if self.fetch is None:
                images: Any = augmented(self.data.images[chosen], drawn)
            else:
                images = OnDevice(self.fetch, chosen, drawn)
            yield Batch(images, self.data.labels[chosen], np.arange(where.start, where.stop))


def count_batches(total: int, batch_size: int, drop_last: bool = False) -> int:
    """Batches of so many examples."""
    full, short = divmod(total, batch_size)
    if short == 1 and full:  # one image has no batch statistics: it joins the batch before it
        return full
    return full + (short > 0 and not drop_last)


def cut(total: int, batch_size: int, start: int = 0, drop_last: bool = False) -> Iterator[slice]:
    """The places of each batch among so many examples, from batch `start` on."""
    count = count_batches(total, batch_size, drop_last)
    for number in range(start, count):
        last = number + 1 == count and not drop_last
        yield slice(number * batch_size, total if last else (number + 1) * batch_size)


def check_settings(batch_size: int, augment: str) -> None:
    """UsageError if no batches of any data could have these."""
    if batch_size < 1:
        raise UsageError(f"expected a batch size of at least 1, received {batch_size}; choose another")
    if augment not in AUGMENT:
        known = ", ".join(AUGMENT)
        raise UsageError(f"expected augment to be one of {known}, received {augment!r}; choose one of them")


def in_order(data: ImageData, batch_size: int, rows: slice | None = None) -> Iterator[Batch]:
    """These rows of `data`, or all, once and as they are, for evaluation: positions are places in `data`."""
    first, last = (0, len(data)) if rows is None else (rows.start, rows.stop)
    for where in cut(last - first, batch_size):
        places = np.arange(first + where.start, first + where.stop)
        yield Batch(data.images[places], data.labels[places], places)
