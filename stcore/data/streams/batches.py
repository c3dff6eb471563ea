"""The batches of an epoch of a stream, a function of (seed, epoch) alone, as those of data in memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stcore.base.seeding import Stream, generator
from stcore.data.augment import Augment, augmented, draw
from stcore.data.batches import Batch, check_settings, count_batches, cut
from stcore.data.streams.dataset import StreamData
from stcore.data.streams.index import Shard
from stcore.data.streams.tar import Sample, read_samples
from stcore.errors import UsageError

BUFFER = 2048


@dataclass(frozen=True, eq=False)
class StreamBatches:
    """Batches of a stream: at each epoch its shards in a new order, and their images mixed by a shuffle buffer.

    Shards are read one after the other; the next image is one of the `buffer` that were read and not given out
    yet. They are held encoded, and memory does not grow with the set. The last batch is as in `Batches`.

    augment: as in `Batches`.   buffer: at least 1, which keeps each shard's order.
    UsageError if a setting does not fit.
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
        """The batches of one epoch, from batch `start` on (to resume within it).

        What came before is not read again: shards that are used up are not opened, and of the others only the
        headers are walked up to the first image that is still to come.
        DataError, with file and member, for a shard that has changed or an image that does not fit.
        """
        total = len(self.data)
        shards = [self.data.shards[i] for i in self._rng(epoch).permutation(len(self.data.shards))]
        order = buffered(total, self.buffer, self._rng(epoch, draw=1))
        draws = draw(self.augment, self.seed, epoch, total)
        wanted = np.zeros(total, bool)
        wanted[order[start * self.batch_size :]] = True
        arriving, held = _read(shards, wanted), dict[int, Sample]()
        for where in cut(total, self.batch_size, start):
            samples = []
            for number in order[where].tolist():
                while number not in held:
                    held.update([next(arriving)])
                samples.append(held.pop(number))
            images = np.stack([self.data.pixels(sample) for sample in samples])
            images = augmented(images, None if draws is None else draws.at(where))
            labels = np.array([sample.label for sample in samples], np.int64)
            yield Batch(images, labels, np.arange(where.start, where.stop))

    def _rng(self, epoch: int, draw: int = 0) -> np.random.Generator:
        return generator(self.seed, Stream.ORDER, epoch=epoch, draw=draw)


def buffered(total: int, size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """0..total-1 in the order in which a shuffle buffer gives them out."""
    held = list(range(min(size, total)))
    out = np.empty(total, np.int64)
    for place, chosen in enumerate(rng.integers(0, max(len(held), 1), total - len(held)).tolist()):
        out[place], held[chosen] = held[chosen], place + len(held)
    out[total - len(held) :] = rng.permutation(held)
    return out


def _read(shards: list[Shard], wanted: npt.NDArray[np.bool_]) -> Iterator[tuple[int, Sample]]:
    """(number, sample) of those that are wanted, numbered over the shards in this order."""
    first = 0
    for shard in shards:
        chosen = wanted[first : first + shard.samples]
        if chosen.any():
            for number, sample in read_samples(shard.path, chosen):
                yield first + number, sample
        first += shard.samples
