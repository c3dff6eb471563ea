"""Batches of a stream's epoch, a pure function of (seed, epoch), as for data in memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stcore.base.seeding import Stream, generator
from stcore.data.augment import Augment, augmented, draw
from stcore.data.batches import Batch, batch_slices, check_settings, count_batches
from stcore.data.streams.dataset import StreamData
from stcore.data.streams.index import Shard
from stcore.data.streams.tar import Sample, read_samples
from stcore.errors import UsageError

BUFFER = 2048  # images


@dataclass(frozen=True, eq=False)
class StreamBatches:
    """Batches of a stream: each epoch has a new order of shards and mixes their images in a shuffle buffer.

    Shards are read in sequence; the next image is drawn from a buffer of `buffer` images. The buffer holds them
    encoded, so memory does not grow with the set. The last batch is as in `Batches`.

    augment: as in `Batches`.   buffer: number of images, at least 1; 1 keeps each shard's order.
    Raises UsageError if a setting does not fit.
    """

    data: StreamData
    batch_size: int
    seed: int
    augment: Augment = "none"
    buffer: int = BUFFER

    def __post_init__(self) -> None:
        check_settings(self.batch_size, self.augment)
        if self.buffer < 1:
            raise UsageError(f"expected a shuffle buffer of at least 1 image, received {self.buffer}; enlarge it")

    def __len__(self) -> int:
        """Batches per epoch."""
        return count_batches(len(self.data), self.batch_size)

    @property
    def examples(self) -> int:
        """Examples per epoch: all of the data."""
        return len(self.data)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yields the batches of one epoch, starting at batch `start` (to resume within it).

        Images of earlier batches are not read: finished shards are not opened, and the others are skipped header
        by header up to the first remaining image.
        Raises DataError, with file and member, for a shard that has changed or an image that does not fit.
        """
        total = len(self.data)
        shards = [self.data.shards[i] for i in self._rng(epoch).permutation(len(self.data.shards))]
        order = buffered(total, self.buffer, self._rng(epoch, draw=1))
        draws = draw(self.augment, self.seed, epoch, total)
        remaining = np.zeros(total, bool)
        remaining[order[start * self.batch_size :]] = True
        arriving, buffer = _read(shards, remaining), dict[int, Sample]()
        for rows in batch_slices(total, self.batch_size, start):
            samples = []
            for number in order[rows].tolist():
                while number not in buffer:
                    buffer.update([next(arriving)])
                samples.append(buffer.pop(number))
            images = np.stack([self.data.pixels(sample) for sample in samples])
            images = augmented(images, None if draws is None else draws.at(rows))
            labels = np.array([sample.label for sample in samples], np.int64)
            yield Batch(images, labels, np.arange(rows.start, rows.stop))

    def _rng(self, epoch: int, draw: int = 0) -> np.random.Generator:
        return generator(self.seed, Stream.ORDER, epoch=epoch, draw=draw)


def buffered(total: int, size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The numbers 0..total-1 in the output order of a shuffle buffer of this size."""
    buffer = list(range(min(size, total)))
    out = np.empty(total, np.int64)
    for i, slot in enumerate(rng.integers(0, max(len(buffer), 1), total - len(buffer)).tolist()):
        out[i], buffer[slot] = buffer[slot], i + len(buffer)
    out[total - len(buffer) :] = rng.permutation(buffer)
    return out


def _read(shards: list[Shard], wanted: npt.NDArray[np.bool_]) -> Iterator[tuple[int, Sample]]:
    """Yields (number, sample) of the wanted samples, numbered over the shards in this order."""
    first = 0
    for shard in shards:
        mask = wanted[first : first + shard.samples]
        if mask.any():
            for number, sample in read_samples(shard.path, mask):
                yield first + number, sample
        first += shard.samples
