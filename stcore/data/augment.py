"""Augmentation of training images, on the host: uint8 (B, H, W, C) in, the same shape out.

An epoch's draws are made at once, by position: an image's draws do not depend on the batch size, on the rank, or
on where a run was resumed.
"""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from stcore.base.seeding import Stream, generator
from stcore.data import crop_flip, resized_crop, trivial_augment
from stcore.errors import UsageError

Augment = Literal["none", "flip", "crop-flip", "crop-flip-cutout", "random-resized-crop-flip", "trivial-augment"]
AUGMENT: tuple[str, ...] = get_args(Augment)


class Draws(Protocol):
    """Random draws for N images."""

    def at(self, rows: slice, /) -> Draws:
        """The draws of some of the images."""

    def applied(self, images: npt.NDArray[np.uint8], /) -> npt.NDArray[np.uint8]:
        """The augmented images, uint8 (N, H, W, C); the shape stays."""


def draw(augment: str, seed: int, epoch: int, count: int, size: tuple[int, int]) -> Draws | None:
    """The draws of one epoch for `count` images of this height and width; None without augmentation."""
    if augment == "none":
        return None
    rng = generator(seed, Stream.AUGMENT, epoch=epoch)
    if augment == "random-resized-crop-flip":
        return resized_crop.draw(rng, count, size)
    crops = crop_flip.draw(rng, count, crop=augment != "flip", cutout=augment == "crop-flip-cutout")
    return trivial_augment.draw(rng, crops) if augment == "trivial-augment" else crops


def augmented(images: npt.NDArray[np.uint8], draws: Draws | None) -> npt.NDArray[np.uint8]:
    """Augments uint8 images (B, H, W, C) as drawn; the shape stays."""
    return images if draws is None else draws.applied(images)


def check_augment(augment: str, shape: tuple[int, int, int]) -> None:
    """Raises UsageError for an unknown augmentation, or one that does not fit images of this shape (H, W, C)."""
    if augment not in AUGMENT:
        names = ", ".join(AUGMENT)
        raise UsageError(f"expected augment to be one of {names}, received {augment!r}; choose one of them")
    if augment == "trivial-augment" and shape[-1] not in (1, 3):
        raise UsageError(
            f"expected images of 1 or 3 channels with augment = {augment}, received {shape[-1]}; choose another"
        )
