"""Batches of robust self-training (Carmon et al., 2019): labelled and pseudo-labelled images mixed."""

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stcore.base.seeding import Stream, generator
from stcore.data.augment import Augment, augmented, draw
from stcore.data.batches import Batch, check_settings
from stcore.data.images import ImageData
from stcore.data.pixels import as_soft
from stcore.errors import UsageError


@dataclass(frozen=True, eq=False)
class MixedBatches:
    """Batches of `batch_size`, of which round(batch_size · fraction) images come from `extra`, with replacement.

    The rest follows a new permutation of `data` at each epoch, and further ones if `data` is too small. As in the
    released code, an epoch has ceil(len(data) / batch_size) full batches: with a fraction of one half it sees
    about half of `data`. Extra images are spread evenly over a batch, so that every contiguous share (of a device)
    holds both kinds.

    fraction: of extra images, in (0, 1).   augment: as in `Batches`, for both kinds.
    Raises UsageError if a setting does not fit, if a batch would lack one kind, or if the images or labels of
    `extra` do not have `data`'s shape and classes; `extra` may have fewer classes.
    """

    data: ImageData
    extra: ImageData
    fraction: float
    batch_size: int
    seed: int
    augment: Augment = "none"

    def __post_init__(self) -> None:
        check_settings(self.batch_size, self.augment, self.data.image_shape)
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

    def epoch(self, epoch: int, *, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of one epoch, from batch `start` on (to resume within it)."""
        labelled = self._labelled(epoch).reshape(len(self), -1)
        rng = generator(self.seed, Stream.EXTRA, epoch=epoch)
        extra = rng.integers(0, len(self.extra), (len(self), self._extra))
        draws = draw(self.augment, self.seed, epoch, self.examples, self.data.image_shape[:2])
        # Position i is extra if floor((i + 1) · share) exceeds floor(i · share).
        shares = np.arange(self.batch_size + 1) * self._extra // self.batch_size
        is_extra = np.diff(shares) > 0
        for number in range(start, len(self)):
            rows = slice(number * self.batch_size, (number + 1) * self.batch_size)
            images = np.empty((self.batch_size, *self.data.image_shape), np.uint8)
            labels = self._targets(self.data, np.zeros(self.batch_size, np.int64))  # of the shape and dtype
            for mask, source, indices in (
                (~is_extra, self.data, labelled[number]),
                (is_extra, self.extra, extra[number]),
            ):
                images[mask], labels[mask] = source.images[indices], self._targets(source, indices)
            drawn = None if draws is None else draws.at(rows)
            yield Batch(augmented(images, drawn), labels, np.arange(rows.start, rows.stop))

    @property
    def _soft(self) -> bool:
        """Whether the labels are soft: if those of one kind are, all are."""
        return self.data.soft_labels is not None or self.extra.soft_labels is not None

    def _targets(self, source: ImageData, indices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        targets = source.targets[indices]
        return as_soft(targets, self.data.num_classes) if self._soft else targets

    @property
    def _extra(self) -> int:
        return round(self.batch_size * self.fraction)

    def _labelled(self, epoch: int) -> npt.NDArray[np.int64]:
        """Indices of the labelled images of one epoch, in order: concatenated permutations."""
        count, total = len(self) * (self.batch_size - self._extra), len(self.data)
        permutations = [
            generator(self.seed, Stream.ORDER, epoch=epoch, draw=draw).permutation(total)
            for draw in range(math.ceil(count / total))
        ]
        return np.concatenate(permutations)[:count]
