"""A training set that lives on the device as uint8: batches are chosen and augmented there, bit for bit alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stcore.data.augment import CropFlip
from stcore.errors import UsageError

if TYPE_CHECKING:
    from stcore.data.batches import Epochs

RESIDENT = ("auto", "on", "off")
SHARE = 4
"""`auto` gives the images less than one part in so many of the device's free memory: the rest is for training."""

Fetch = Callable[[Any, CropFlip | None], Any]
"""(places (b,), draws of these or None) → the images there, augmented, as the model's tensor."""


@dataclass(frozen=True, eq=False)
class OnDevice:
    """A batch's images, which are on the device: nothing is chosen and augmented before `tensor` is asked for."""

    fetch: Fetch
    places: Any  # int64 (b,)
    draws: CropFlip | None

    def __getitem__(self, where: slice) -> OnDevice:
        """A share of the batch."""
        return OnDevice(self.fetch, self.places[where], None if self.draws is None else self.draws.at(where))

    def tensor(self) -> Any:
        """What the learner's `images` would make of the same images on the host."""
        return self.fetch(self.places, self.draws)


def resident(batches: Epochs, wish: str, free: int, put: Callable[[Any], Fetch]) -> Epochs:
    """The batches with their images on the device, where that is wished for (`on`), or they fit (`auto`).

    free: bytes free on the device, 0 where that is the host.   put: the learner's `resident`, which copies them.
    UsageError where `on` cannot be: of a stream, a memory map or with extra data, which come from the host.
    """
    from stcore.data.batches import Batches

    if wish == "off":
        return batches
    images = batches.data.images if isinstance(batches, Batches) else None
    if not isinstance(images, np.ndarray):
        if wish == "on":
            raise UsageError(
                "resident: expected training images in memory and no others beside them; received a stream, a "
                "memory map or extra data, whose batches are put together on the host. Leave the option out"
            )
        return batches
    if wish == "auto" and images.nbytes * SHARE >= free:
        return batches
    return dataclasses.replace(batches, fetch=put(images))  # type: ignore[type-var]
