"""Augmentation of the CIFAR recipes: zero padding, a random crop, a random horizontal flip; and cutout."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

PAD = 4
HOLE = 14 / 32
"""The side of cutout's square as a share of the image's: 14 of 32 pixels, the best with adversarial training in
Rice et al. (2020)."""


class CropFlip(NamedTuple):
    """Random draws for N images: the corner of each crop in the padded image, and whether to flip it.

    hole: (2, N), cutout only: the centre of its square, as shares in [0, 1) of height and width.
    """

    top: npt.NDArray[np.int64]  # (N,), 0..2·PAD; PAD is no shift
    left: npt.NDArray[np.int64]
    flip: npt.NDArray[np.bool_]
    hole: npt.NDArray[np.float64] | None = None

    def at(self, rows: slice) -> "CropFlip":
        """The draws of some of the images."""
        hole = None if self.hole is None else self.hole[:, rows]
        return CropFlip(self.top[rows], self.left[rows], self.flip[rows], hole)

    def applied(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The augmented images, uint8 (B, H, W, C); the shape stays."""
        result = crop_flip(images, self)
        if self.hole is not None:
            result[_covered(self.hole, *images.shape[1:3])] = 0
        return result


def draw(rng: np.random.Generator, count: int, crop: bool = True, cutout: bool = False) -> CropFlip:
    """Draws for `count` images. Flips are the same without crops, and crops and flips without cutout."""
    corners = rng.integers(0, 2 * PAD + 1, (2, count))
    top, left = corners if crop else np.full_like(corners, PAD)
    flip = rng.random(count) < 0.5
    return CropFlip(top, left, flip, rng.random((2, count)) if cutout else None)


def _covered(hole: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.bool_]:
    """(N, H, W) booleans: the pixels under cutout's square (DeVries & Taylor, 2017), clipped at the border."""

    def within(first: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.bool_]:
        places = np.arange(side) - first[:, None]
        return (places >= 0) & (places < hidden(side))

    rows, columns = _corners(hole, height, width)
    return within(rows, height)[:, :, None] & within(columns, width)[:, None, :]


def hidden(side: int) -> int:
    """The side of cutout's square in an image of this side."""
    return round(HOLE * side)


def _corners(hole: npt.NDArray[np.float64], height: int, width: int) -> list[npt.NDArray[np.int64]]:
    """The first rows and the first columns of cutout's squares, (N,) each; negative where a border clips them."""
    sides = height, width
    centres = zip(hole, sides, strict=True)
    return [np.floor(centre * side).astype(np.int64) - hidden(side) // 2 for centre, side in centres]


def as_table(draws: CropFlip | None, height: int, width: int) -> list[npt.NDArray[np.int64]]:
    """The draws of N images as whole numbers (N,): top, left, flip; then cutout's first row and first column."""
    if draws is None:
        return []
    corners = [] if draws.hole is None else _corners(draws.hole, height, width)
    return [draws.top, draws.left, draws.flip.astype(np.int64), *corners]


def crop_flip(images: npt.NDArray[np.uint8], draws: CropFlip) -> npt.NDArray[np.uint8]:
    """Crops each uint8 image (B, H, W, C) from its padded image and flips it if drawn; the shape stays."""
    count, height, width, channels = images.shape
    padded = np.zeros((count, height + 2 * PAD, width + 2 * PAD, channels), np.uint8)
    padded[:, PAD:-PAD, PAD:-PAD] = images
    # With width and channels as one axis, each row of a window is contiguous, so the gather copies rows.
    lines = padded.reshape(count, height + 2 * PAD, -1)
    windows = np.lib.stride_tricks.sliding_window_view(lines, (height, width * channels), axis=(1, 2))
    out: npt.NDArray[np.uint8] = windows[np.arange(count), draws.top, draws.left * channels].reshape(images.shape)
    out[draws.flip] = out[draws.flip, :, ::-1]
    return out
