"""Training sets kept on the device as uint8, with the same batches bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from stcore.data.batches import Batches, Epochs
from stcore.data.on_device import Fetch
from stcore.errors import UsageError

RESIDENT = ("auto", "on", "off")
AUGMENTED_THERE = ("none", "flip", "crop-flip", "crop-flip-cutout")
"""The augmentations that a device makes."""
SHARE = 4
"""`auto` uses less than 1 / SHARE of the device's free memory for the images: the rest is for training."""


def resident(batches: Epochs, choice: str, free: int, put: Callable[[Any], Fetch]) -> Epochs:
    """The batches with their images on the device, if `choice` is `on`, or `auto` and they fit.

    choice: auto, on or off.   free: free bytes on the device, 0 if it shares the host's memory.
    put: the learner's `resident`, which copies the images.
    Raises UsageError for `on` with batches that are built on the host: of a stream or extra data, with mixup or
    CutMix, or with an augmentation that the device does not make.
    """
    if choice == "off":
        return batches
    if not isinstance(batches, Batches) or batches.augment not in AUGMENTED_THERE:
        if choice == "on":
            raise UsageError(
                "resident: expected training images in memory or in a memory map, without extra data, mixup or "
                f"cutmix, and augment as one of {', '.join(AUGMENTED_THERE)}; received others, which are built on "
                "the host. Leave the option out"
            )
        return batches
    images = batches.data.images
    if choice == "auto" and images.nbytes * SHARE >= free:
        return batches
    return dataclasses.replace(batches, fetch=put(np.asarray(images)))
