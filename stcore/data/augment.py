"""The augmentation of CIFAR recipes: zero padding, a random crop, a mirror image half of the time."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stcore.seeding import Stream, generator

PAD = 4


class CropFlip(NamedTuple):
    """For each of N images: the corner of its window in the padded image, and whether it is mirrored."""

    top: npt.NDArray[np.int64]  # (N,), 0..2·PAD; PAD leaves the image where it was
    left: npt.NDArray[np.int64]
    flip: npt.NDArray[np.bool_]

    def at(self, where: slice) -> "CropFlip":
        return CropFlip(self.top[where], self.left[where], self.flip[where])


def draw_crop_flip(seed: int, epoch: int, count: int) -> CropFlip:
    """The draws of one epoch, by position: the same ones for any batch size."""
    rng = generator(seed, Stream.AUGMENT, epoch=epoch)
    top, left = rng.integers(0, 2 * PAD + 1, (2, count))
    return CropFlip(top, left, rng.random(count) < 0.5)


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
