"""Mixup and CutMix: batches whose images and labels are mixed with those of the batch in reverse order.

    mixup    λ·x + (1 − λ)·x', rounded to whole shades      λ ~ Beta(α, α)           (Zhang et al., 2018)
    cutmix   x with a box of x' of 1 − λ of the area        λ ~ Beta(α, α)           (Yun et al., 2019)

and the soft label λ·y + (1 − λ)·y'. λ, the box and the choice between the two are of a batch, as in timm; they are
drawn at the position of its first example. Mixing is the last of the augmentations.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stcore.base import checks
from stcore.base.seeding import Stream, generator
from stcore.data.batches import Batch, Epochs
from stcore.data.pixels import as_soft
from stcore.errors import UsageError

Images = npt.NDArray[np.uint8]


class Mix(NamedTuple):
    """How a batch is mixed. share: λ, in [0, 1].   box: rows and columns that CutMix takes over; None: mixup."""

    share: float
    box: tuple[slice, slice] | None

    def images(self, images: Images) -> Images:
        """The mixed images, uint8 (B, H, W, C)."""
        other = images[::-1]
        if self.box is None:
            share = np.float32(self.share)
            return np.rint(share * images + (1 - share) * other).astype(np.uint8)
        result = images.copy()
        result[:, *self.box] = other[:, *self.box]
        return result

    def labels(self, labels: npt.NDArray[Any], num_classes: int) -> npt.NDArray[np.float64]:
        """The soft labels (B, C) of integer labels (B,) or soft ones."""
        soft = as_soft(labels, num_classes)
        return self.share * soft + (1 - self.share) * soft[::-1]


def draw(
    mixup: float | None, cutmix: float | None, seed: int, epoch: int, first: int, size: tuple[int, int]
) -> Mix:
    """Draws for a batch of images of this height and width; arguments as in `MixingBatches`.

    first: the position of the batch's first example in the epoch.
    """
    rng = generator(seed, Stream.MIX, epoch=epoch, position=first)
    kinds = [(cuts, alpha) for cuts, alpha in ((False, mixup), (True, cutmix)) if alpha is not None]
    cuts, alpha = kinds[rng.integers(len(kinds))]
    share = rng.beta(alpha, alpha)
    if not cuts:
        return Mix(share, None)
    side = np.sqrt(1 - share)
    box, area = [], 1.0
    for full in size:
        centre, half = int(rng.integers(full)), int(full * side) // 2
        box.append(slice(max(centre - half, 0), min(centre + half, full)))
        area *= (box[-1].stop - box[-1].start) / full
    return Mix(1 - area, (box[0], box[1]))


@dataclass(frozen=True, eq=False)
class MixingBatches:
    """The batches of another source, mixed.

    batches: on the host.   num_classes, size: of the data, C and (H, W).
    mixup, cutmix: α of Beta(α, α), above 0, or None for without; one of the two is there, and with both each batch
    takes one of them with equal chance.
    Raises UsageError for another α.
    """

    batches: Epochs
    num_classes: int
    size: tuple[int, int]
    seed: int
    mixup: float | None = None
    cutmix: float | None = None

    def __post_init__(self) -> None:
        check_alphas(self.mixup, self.cutmix)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.batches)

    @property
    def examples(self) -> int:
        """Examples per epoch."""
        return self.batches.examples

    def epoch(self, epoch: int, *, start: int = 0) -> Generator[Batch, None, None]:
        """Yields the batches of one epoch, starting at batch `start` (to resume within it)."""
        with closing(self.batches.epoch(epoch, start=start)) as batches:
            for batch in batches:
                mix = draw(self.mixup, self.cutmix, self.seed, epoch, int(batch.positions[0]), self.size)
                labels = mix.labels(batch.labels, self.num_classes)
                yield Batch(mix.images(batch.images), labels, batch.positions)


def check_alphas(mixup: float | None, cutmix: float | None) -> None:
    """Raises UsageError unless each α is above 0, or None."""
    for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
        if alpha is not None:
            checks.number(name, alpha)
            if not alpha:
                raise UsageError(f"{name}: expected a number above 0, α of Beta(α, α); received 0. Leave it out")
