"""The batches of robust self-training (Carmon et al. 2019): labelled and pseudo-labelled images, side by side."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stcore.base.seeding import Stream, generator
from stcore.data.augment import Augment, augmented, draw
from stcore.data.batches import Batch, check_settings
from stcore.data.images import ImageData
from stcore.errors import UsageError


@dataclass(frozen=True, eq=False)
class MixedBatches:
    """Batches of `batch_size`, of which round(batch_size · fraction) are drawn from `extra` with replacement.

    The rest follows a new permutation of `data` at each epoch, and then another one if `data` is too small. As
    released, an epoch has as many batches as one of `data` alone, ceil(len(data) / batch_size), each of them
    full: at a fraction of one half it sees about half of `data`. Extra images are spread evenly over a batch's
    places, so that every contiguous share of it (a device's) has its part of either.

    augment: as in `Batches`, on both.
    UsageError if a setting does not fit, if a batch would hold none of one kind, or if the images or labels of
    `extra` are not of `data`'s shape and classes; it may have fewer classes.
    """

    data: ImageData
    extra: ImageData
    fraction: float
    batch_size: int
    seed: int
    augment: Augment = "none"

    def __post_init__(self) -> None:
        check_settings(self.batch_size, self.augment)
        if not 0 < self.fraction < 1:
            raise UsageError(
                f"expected a fraction of extra images in (0, 1), received {self.fraction}; choose another"
            )
        if not 0 < self._extra < self.batch_size:
            raise UsageError(
                f"expected at least one labelled and one extra image in a batch, received {self.fraction} of "
                f"{self.batch_size}, rounded to {self._extra} extra; make the batches larger, or choose another "
                "fraction"
            )
        if self.extra.image_shape != self.data.image_shape:
            raise UsageError(
                f"{self.extra.name}: expected images of shape {self.data.image_shape} as in {self.data.name}, "
                f"received {self.extra.image_shape}; choose extra data of the same kind"
            )
        if self.extra.labels.max() >= self.data.num_classes:
            raise UsageError(
                f"{self.extra.name}: expected labels in [0, {self.data.num_classes}) as in {self.data.name}, "
                f"received {self.extra.labels.max()}; choose extra data of the same classes"
            )

    def __len__(self) -> int:
        """Batches per epoch."""
        return math.ceil(len(self.data) / self.batch_size)

    @property
    def examples(self) -> int:
        """Examples per epoch, of both kinds."""
        return len(self) * self.batch_size

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch `start` on (to resume within it)."""
        labelled = self._labelled(epoch).reshape(len(self), -1)
        rng = generator(self.seed, Stream.EXTRA, epoch=epoch)
        extra = rng.integers(0, len(self.extra), (len(self), self._extra))
        draws = draw(self.augment, self.seed, epoch, self.examples)
        # True where the even share of extra images reaches the next whole one.
        shares = np.arange(self.batch_size + 1) * self._extra // self.batch_size
        is_extra = np.diff(shares) > 0
        for number in range(start, len(self)):
            where = slice(number * self.batch_size, (number + 1) * self.batch_size)
            images = np.empty((self.batch_size, *self.data.image_shape), np.uint8)
            labels = np.empty(self.batch_size, np.int64)
            for places, source, chosen in (
                (~is_extra, self.data, labelled[number]),
                (is_extra, self.extra, extra[number]),
            ):
                images[places], labels[places] = source.images[chosen], source.labels[chosen]
            drawn = None if draws is None else draws.at(where)
            yield Batch(augmented(images, drawn), labels, np.arange(where.start, where.stop))

    @property
    def _extra(self) -> int:
        return round(self.batch_size * self.fraction)

    def _labelled(self, epoch: int) -> npt.NDArray[np.int64]:
        """The labelled images of one epoch, in its order: one permutation after the other."""
        needed, total = len(self) * (self.batch_size - self._extra), len(self.data)
        permutations = [
            generator(self.seed, Stream.ORDER, epoch=epoch, draw=draw).permutation(total)
            for draw in range(math.ceil(needed / total))
        ]
        return np.concatenate(permutations)[:needed]
