"""Batches of a stream's epoch, a pure function of (seed, epoch), as for data in memory."""

import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stcore.base import checks
from stcore.base.ahead import ordered_ahead
from stcore.base.ranks import launched_here
from stcore.base.seeding import Stream, generator
from stcore.data.augment import Augment, augmented, draw
from stcore.data.batches import Batch, batch_slices, check_settings, count_batches
from stcore.data.streams.dataset import StreamData
from stcore.data.streams.index import Shard
from stcore.data.streams.tar import Sample, read_samples
from stcore.errors import UsageError

BUFFER = 2048  # images
MOST_WORKERS = 4
"""Decode workers by default, on as many cores or more."""


@dataclass(frozen=True, eq=False)
class StreamBatches:
    """Batches of a stream: each epoch has a new order of shards and mixes their images in a shuffle buffer.

    Shards are read in sequence; the next image is drawn from a buffer of `buffer` images. The buffer holds them
    encoded, so memory does not grow with the set. The last batch is as in `Batches`.
    Threads read, decode and augment ahead, each a batch: they hold at most `workers` + 1 batches. The batches are
    the same for any number of threads, and an error comes when its batch's turn comes.

    augment: as in `Batches`.   buffer: number of images, at least 1; 1 keeps each shard's order.
    workers: threads that decode; 0 decodes in the caller's thread, None is `default_workers()`.
    Raises UsageError if a setting does not fit.
    """

    data: StreamData
    batch_size: int
    seed: int
    augment: Augment = "none"
    buffer: int = BUFFER
    workers: int | None = None

    def __post_init__(self) -> None:
        check_settings(self.batch_size, self.augment, self.data.image_shape)
        if self.workers is not None:
            checks.whole("workers", self.workers)
        if self.buffer < 1:
            raise UsageError(f"expected a shuffle buffer of at least 1 image, received {self.buffer}; enlarge it")

    def __len__(self) -> int:
        """Batches per epoch."""
        return count_batches(len(self.data), self.batch_size)

    @property
    def examples(self) -> int:
        """Examples per epoch: all of the data."""
        return len(self.data)

    def epoch(self, epoch: int, *, start: int = 0) -> Generator[Batch, None, None]:
        """Yields the batches of one epoch, starting at batch `start` (to resume within it).

        Images of earlier batches are not read: finished shards are not opened, and the others are skipped header
        by header up to the first remaining image. The threads end with the generator: close it to leave it early.
        Raises DataError, with file and member, for a shard that has changed or an image that does not fit.
        """
        draws = draw(self.augment, self.seed, epoch, len(self.data), self.data.image_shape[:2])

        def batch(encoded: tuple[slice, list[Sample]]) -> Batch:
            rows, samples = encoded
            images = np.stack([self.data.pixels(sample) for sample in samples])
            images = augmented(images, None if draws is None else draws.at(rows))
            labels = np.array([sample.label for sample in samples], np.int64)
            return Batch(images, labels, np.arange(rows.start, rows.stop))

        workers = default_workers() if self.workers is None else self.workers
        yield from ordered_ahead(batch, self._encoded(epoch, start), workers, workers + 1)

    def _encoded(self, epoch: int, start: int) -> Iterator[tuple[slice, list[Sample]]]:
        """The rows and the encoded images of each batch."""
        total = len(self.data)
        shards = [self.data.shards[i] for i in self._rng(epoch).permutation(len(self.data.shards))]
        order = buffered(total, self.buffer, self._rng(epoch, draw=1))
        remaining = np.zeros(total, bool)
        remaining[order[start * self.batch_size :]] = True
        arriving, buffer = _read(shards, remaining), dict[int, Sample]()
        for rows in batch_slices(total, self.batch_size, start):
            samples = []
            for number in order[rows].tolist():
                while number not in buffer:
                    buffer.update([next(arriving)])
                samples.append(buffer.pop(number))
            yield rows, samples

    def _rng(self, epoch: int, draw: int = 0) -> np.random.Generator:
        return generator(self.seed, Stream.ORDER, epoch=epoch, draw=draw)


def default_workers() -> int:
    """Decode workers by the number of cores that this process, as one of the ranks of this machine, may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores // launched_here()))


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
