"""Batches of a stream's epoch, a pure function of (seed, epoch), as for data in memory."""

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from stcore.base import checks
from stcore.base.ahead import ordered_ahead
from stcore.base.ranks import launched_here
from stcore.base.seeding import Stream, generator
from stcore.data.augment import Augment, CropFlip, augmented, draw
from stcore.data.batches import Batch, batch_slices, check_settings, count_batches
from stcore.data.rows import Pixels
from stcore.data.streams.dataset import StreamData
from stcore.data.streams.index import Shard
from stcore.data.streams.tar import Sample, read_samples
from stcore.errors import UsageError

BUFFER = 2048  # images
AHEAD = 2
"""Batches at most that are decoded ahead."""
MOST_WORKERS = 4
"""Decode workers by default, on as many cores: an image of 32 pixels is too short a task for more threads."""


@dataclass(frozen=True, eq=False)
class StreamBatches:
    """Batches of a stream: each epoch has a new order of shards and mixes their images in a shuffle buffer.

    Shards are read in sequence; the next image is drawn from a buffer of `buffer` images. The buffer holds them
    encoded, so memory does not grow with the set. The last batch is as in `Batches`.
    Threads read and decode the images of the next `AHEAD` batches, and hold no more; the batches are the same for
    any number of threads, and an error comes when its image's turn comes.

    augment: as in `Batches`.   buffer: number of images, at least 1; 1 keeps each shard's order.
    workers: threads that decode; 0 decodes in the caller's thread, None chooses by the number of cores.
    Raises UsageError if a setting does not fit.
    """

    data: StreamData
    batch_size: int
    seed: int
    augment: Augment = "none"
    buffer: int = BUFFER
    workers: int | None = None

    def __post_init__(self) -> None:
        check_settings(self.batch_size, self.augment)
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
        total = len(self.data)
        draws = draw(self.augment, self.seed, epoch, total)
        workers = default_workers() if self.workers is None else self.workers
        samples = self._samples(epoch, start * self.batch_size)
        with closing(ordered_ahead(self._decoded, samples, workers, AHEAD * self.batch_size)) as decoded:
            for rows in batch_slices(total, self.batch_size, start):
                drawn = None if draws is None else draws.at(rows)
                yield _batch(islice(decoded, rows.stop - rows.start), drawn, rows)

    def _samples(self, epoch: int, start: int) -> Iterator[Sample]:
        """The encoded images of an epoch in their order, from image `start`."""
        total = len(self.data)
        shards = [self.data.shards[i] for i in self._rng(epoch).permutation(len(self.data.shards))]
        order = buffered(total, self.buffer, self._rng(epoch, draw=1))[start:]
        remaining = np.zeros(total, bool)
        remaining[order] = True
        arriving, buffer = _read(shards, remaining), dict[int, Sample]()
        for number in order.tolist():
            while number not in buffer:
                buffer.update([next(arriving)])
            yield buffer.pop(number)

    def _decoded(self, sample: Sample) -> tuple[Pixels, int]:
        return self.data.pixels(sample), sample.label

    def _rng(self, epoch: int, draw: int = 0) -> np.random.Generator:
        return generator(self.seed, Stream.ORDER, epoch=epoch, draw=draw)


def _batch(decoded: Iterable[tuple[Pixels, int]], drawn: CropFlip | None, rows: slice) -> Batch:
    images, labels = zip(*decoded, strict=True)
    return Batch(augmented(np.stack(images), drawn), np.array(labels, np.int64), np.arange(rows.start, rows.stop))


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
