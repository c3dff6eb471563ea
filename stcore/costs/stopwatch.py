"""A stopwatch for work on batches: the time of the first ones, then the pace."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import chain

from stcore.data import Batch

WARM = 2  # batches before the pace is taken: the first one traces, compiles and allocates memory


@dataclass(frozen=True)
class Spent:
    """Wall-clock seconds, and seconds of CPU time of the process in all its threads."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @classmethod
    def now(cls) -> Spent:
        """The clocks now; the difference of two is the time between them."""
        return cls(time.perf_counter(), time.process_time())

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def __sub__(self, other: Spent) -> Spent:
        return self + -1.0 * other

    def __rmul__(self, factor: float) -> Spent:
        return Spent(factor * self.seconds, factor * self.cpu_seconds)


@dataclass(frozen=True)
class Pace:
    """The time spent once, beyond the pace, and the time per image.

    images: the number of images that the pace was measured on; 0 if all went into the first batches, so that the
    two cannot be separated.
    """

    once: Spent
    image: Spent
    images: int


class Stopwatch:
    """Yields batches for `seconds`, or until `stop` returns true, and about `images` at most.

    At least two batches are yielded: the first may be all tracing and compiling.
    wait: returns when the device has finished all its work.
    """

    def __init__(
        self, seconds: float, images: int, wait: Callable[[], object], stop: Callable[[], bool] = lambda: False
    ) -> None:
        self._until, self._most = time.perf_counter() + seconds, images
        self._wait, self._stop = wait, stop
        self.pace: Pace | None = None
        """None until `over` ends."""

    def over(self, epoch: Callable[[], Iterator[Batch]]) -> Generator[Batch, None, None]:
        """The batches of an epoch, repeatedly; the caller's work between two batches is timed."""
        batches = chain.from_iterable(iter(epoch, None))
        begun, first = Spent.now(), 0
        for _ in range(WARM):
            batch = next(batches)
            yield batch
            first += len(batch.labels)
            if self._is_over(first):
                break
        self._wait()
        warmed, images = Spent.now(), 0
        while not (self._is_over(first + images) if images else first >= self._most or self._stop()):
            batch = next(batches)
            yield batch
            images += len(batch.labels)
        self._wait()
        at_first = warmed - begun
        if images == 0:
            self.pace = Pace(Spent(), 1 / first * at_first, 0)
            return
        image = 1 / images * (Spent.now() - warmed)
        beyond = at_first - first * image
        self.pace = Pace(Spent(max(0.0, beyond.seconds), max(0.0, beyond.cpu_seconds)), image, images)

    def _is_over(self, images: int) -> bool:
        return images >= self._most or time.perf_counter() >= self._until or self._stop()
