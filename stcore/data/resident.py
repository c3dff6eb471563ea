"""A training set that lives on the device as uint8: batches are chosen and augmented there, bit for bit alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from stcore.data.on_device import Fetch
from stcore.errors import UsageError

if TYPE_CHECKING:
    from stcore.data.batches import Epochs

RESIDENT = ("auto", "on", "off")
SHARE = 4
"""`auto` gives the images less than one part in so many of the device's free memory: the rest is for training."""


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
