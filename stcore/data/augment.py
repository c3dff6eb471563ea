"""The augmentation of CIFAR recipes: zero padding, a random crop, a mirror image half of the time; and cutout."""

from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from stcore.base.seeding import Stream, generator

Augment = Literal["none", "crop-flip", "crop-flip-cutout"]
AUGMENT: tuple[str, ...] = get_args(Augment)

PAD = 4
HOLE = 14 / 32
"""The side of cutout's square as a share of the image's: 14 of 32 pixels, as Rice et al. (2020) found best beside
adversarial training."""


class CropFlip(NamedTuple):
    """For each of N images: the corner of its window in the padded image, and whether it is mirrored.

    hole: (2, N), of cutout alone: where the centre of its square lies, as shares in [0, 1) of height and width.
    """

    top: npt.NDArray[np.int64]  # (N,), 0..2·PAD; PAD leaves the image where it was
    left: npt.NDArray[np.int64]
    flip: npt.NDArray[np.bool_]
    hole: npt.NDArray[np.float64] | None = None

    def at(self, where: slice) -> "CropFlip":
        hole = None if self.hole is None else self.hole[:, where]
        return CropFlip(self.top[where], self.left[where], self.flip[where], hole)


def draw(augment: str, seed: int, epoch: int, count: int) -> CropFlip | None:
    """The draws of one epoch, by position: the same ones for any batch size; None where nothing is augmented.

    Cutout draws last: its crops and mirrors are those of `crop-flip`.
    """
    if augment == "none":
        return None
    rng = generator(seed, Stream.AUGMENT, epoch=epoch)
    top, left = rng.integers(0, 2 * PAD + 1, (2, count))
    flip = rng.random(count) < 0.5
    return CropFlip(top, left, flip, rng.random((2, count)) if augment == "crop-flip-cutout" else None)


def augmented(images: npt.NDArray[np.uint8], draws: CropFlip | None) -> npt.NDArray[np.uint8]:
    """uint8 (B, H, W, C) -> the same shape, as drawn."""
    if draws is None:
        return images
    moved = crop_flip(images, draws)
    if draws.hole is not None:
        moved[covered(draws.hole, *images.shape[1:3])] = 0
    return moved


def covered(hole: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.bool_]:
    """(N, H, W): which pixels the square of cutout hides (DeVries & Taylor, 2017); at a border it is cut off."""

    def within(centre: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.bool_]:
        length = round(HOLE * side)
        first = np.floor(centre * side).astype(np.int64)[:, None] - length // 2
        return (np.arange(side) >= first) & (np.arange(side) < first + length)

    return within(hole[0], height)[:, :, None] & within(hole[1], width)[:, None, :]


def windows(draws: CropFlip, height: int, width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the rows (N, H) and columns (N, W) of each augmented image lie in its padded self."""
    columns = np.arange(width)
    turned = np.where(draws.flip[:, None], columns[::-1], columns)
    return draws.top[:, None] + np.arange(height), draws.left[:, None] + turned


def crop_flip(images: npt.NDArray[np.uint8], draws: CropFlip) -> npt.NDArray[np.uint8]:
    """uint8 (B, H, W, C) -> the same shape: each image's window of its padded self, mirrored where `flip`."""
    count, height, width, channels = images.shape
    padded = np.zeros((count, height + 2 * PAD, width + 2 * PAD, channels), np.uint8)
    padded[:, PAD:-PAD, PAD:-PAD] = images
    # With width and channels as one axis each row of a window is contiguous: the gather copies rows.
    lines = padded.reshape(count, height + 2 * PAD, -1)
    windows = np.lib.stride_tricks.sliding_window_view(lines, (height, width * channels), axis=(1, 2))
    out: npt.NDArray[np.uint8] = windows[np.arange(count), draws.top, draws.left * channels].reshape(images.shape)
    out[draws.flip] = out[draws.flip, :, ::-1]
    return out
