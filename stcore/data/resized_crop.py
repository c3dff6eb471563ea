"""Random resized crop and horizontal flip, the augmentation of ImageNet recipes (Szegedy et al., 2015).

A box of 8 to 100 % of the image's area and of an aspect ratio from 3/4 to 4/3 is resized to the image's own size,
as torchvision's RandomResizedCrop does by default. It is resampled bilinearly in pillow's fixed-point arithmetic,
so the numbers are pillow's and the same on every machine.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

AREA = 0.08, 1.0
RATIO = 3 / 4, 4 / 3
TRIES = 10
"""How often a box is drawn that may not fit; then the largest central one of an allowed ratio is taken."""
BITS = 22
"""Fractional bits of a pixel's weight."""

Integers = npt.NDArray[np.int64]


class ResizedCrop(NamedTuple):
    """Random draws for N images: the box that is resized, and whether to flip it. Each (N,)."""

    top: Integers
    left: Integers
    height: Integers
    width: Integers
    flip: npt.NDArray[np.bool_]

    def at(self, rows: slice) -> "ResizedCrop":
        """The draws of some of the images."""
        return ResizedCrop(*(drawn[rows] for drawn in self))  # type: ignore[arg-type]

    def applied(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The boxes, uint8 (N, H, W, C), each resized to the images' size and flipped if drawn."""
        resized = _stretched(_stretched(images, self.left, self.width, 2), self.top, self.height, 1)
        resized[self.flip] = resized[self.flip, :, ::-1]
        return resized


def draw(rng: np.random.Generator, count: int, size: tuple[int, int]) -> ResizedCrop:
    """Draws for `count` images of this height and width."""
    sides = np.array(size)[:, None]
    box, waiting = np.broadcast_to(_central(*size)[:, None], (2, count)), np.ones(count, bool)
    for _ in range(TRIES):
        area = size[0] * size[1] * rng.uniform(*AREA, count)
        ratio = np.exp(rng.uniform(np.log(RATIO[0]), np.log(RATIO[1]), count))
        tried = np.rint(np.sqrt([area / ratio, area * ratio])).astype(np.int64)
        fits = waiting & ((tried > 0) & (tried <= sides)).all(0)
        box, waiting = np.where(fits, tried, box), waiting & ~fits
    rest = sides - box
    place = np.where(waiting, rest // 2, np.floor(rng.random((2, count)) * (rest + 1)).astype(np.int64))
    (top, left), (height, width) = place, box
    return ResizedCrop(top, left, height, width, rng.random(count) < 0.5)


def _central(height: int, width: int) -> Integers:
    """The sides (2,) of the largest box of an allowed ratio."""
    low, high = RATIO
    if width / height < low:
        return np.array([round(width / low), width])
    return np.array([height, round(height * high) if width / height > high else width])


def _stretched(images: npt.NDArray[np.uint8], start: Integers, size: Integers, axis: int) -> npt.NDArray[np.uint8]:
    """Each of the uint8 images (N, H, W, C) with its span along one axis stretched over the whole of it.

    start, size: (N,) first pixel and length of the span.
    """
    out = images.shape[axis]
    centre = (np.arange(out) + 0.5) * (size / out)[:, None]
    first = np.maximum(centre - 0.5, 0.0).astype(np.int64)
    count = np.minimum((centre + 1.5).astype(np.int64), size[:, None]) - first
    near = [np.maximum(1.0 - np.abs(first + tap - centre + 0.5), 0.0) * (tap < count) for tap in range(2)]
    total = near[0] + near[1]
    shape = [-1, 1, 1, 1]
    shape[axis] = out
    result = np.full(1, 1 << (BITS - 1), np.int32)  # rounds half up
    for tap, weight in enumerate(near):
        place = start[:, None] + np.minimum(first + tap, size[:, None] - 1)
        fixed = np.floor(weight / total * (1 << BITS) + 0.5).astype(np.int32)
        pixels = np.take_along_axis(images, place.reshape(shape), axis).astype(np.int32)
        result = result + fixed.reshape(shape) * pixels
    return (result >> BITS).astype(np.uint8)
