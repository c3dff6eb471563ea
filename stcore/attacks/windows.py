"""Windows into images: a rectangle per lane, all of one size, to read and write."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stcore.protocols import Array


class Windows(NamedTuple):
    """Windows of `height` × `width` pixels at `top`, `left` of the images `lanes`: integers (n,), lanes unique."""

    lanes: Array
    top: Array
    left: Array
    height: int
    width: int

    def part(self, begin: int, end: int) -> Windows:
        """Returns the windows of these rows."""
        rows = slice(begin, end)
        return Windows(self.lanes[rows], self.top[rows], self.left[rows], self.height, self.width)

    def read(self, images: Array) -> Array:
        """Copies the windows out of images: (B, H, W, C) → (n, height, width, C)."""
        return self._at_every_position(images)[self.lanes, self.top, self.left]

    def write(self, images: Array, values: Array | float) -> None:
        """Writes values (n, height, width, C), or what broadcasts to it, into images (B, H, W, C) in place."""
        self._at_every_position(images)[self.lanes, self.top, self.left] = values

    def _at_every_position(self, images: Array) -> Array:
        """Returns the windows at every position, as a view (B, rows, columns, height, width, C)."""
        (lanes, rows, columns, channels), strides = images.shape, images.strides
        shape = (lanes, rows - self.height + 1, columns - self.width + 1, self.height, self.width, channels)
        if images.flags.c_contiguous:  # a tenth of the time of `as_strided`, which takes any array
            return np.ndarray(shape, images.dtype, images, strides=(*strides[:3], *strides[1:]))
        return np.lib.stride_tricks.as_strided(images, shape, (*strides[:3], *strides[1:]))


def place(chance: Array, lanes: Array, side: int, size: tuple[int, int]) -> Windows:
    """Places a window of min(side, H) × min(side, W) for each lane, uniformly over all positions.

    chance: (n, 2), uniform in [0, 1).   size: (H, W) of the images.
    """
    rows, columns = size
    height, width = min(side, rows), min(side, columns)
    top, left = (chance * (rows - height + 1, columns - width + 1)).astype(np.intp).T
    return Windows(lanes, top, left, height, width)
