"""Windows into images: a rectangle per lane, all of one size, read and written without touching the rest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stcore.protocols import Array


class Windows(NamedTuple):
    """`lanes`, `top`, `left` (n,), integers: where the windows of `height` × `width` pixels lie; lanes differ."""

    lanes: Array
    top: Array
    left: Array
    height: int
    width: int

    def read(self, images: Array) -> Array:
        """(B, H, W, C) → (n, height, width, C), a copy."""
        return self._everywhere(images)[self.lanes, self.top, self.left]

    def write(self, images: Array, values: Array | float) -> None:
        """Puts (n, height, width, C), or what broadcasts to it, into the images (B, H, W, C) themselves."""
        self._everywhere(images)[self.lanes, self.top, self.left] = values

    def _everywhere(self, images: Array) -> Array:
        """The windows at every position, as a view (B, rows, columns, height, width, C)."""
        size = (self.height, self.width, images.shape[3])
        views = np.lib.stride_tricks.sliding_window_view(images, size, axis=(1, 2, 3), writeable=True)
        return views[:, :, :, 0]


def place(chance: Array, lanes: Array, side: int, images: Array) -> Windows:
    """A window of min(side, H) × min(side, W) for each lane, every position as likely as any other.

    chance: (n, 2), uniform in [0, 1).   images: (B, H, W, C).
    """
    _, rows, columns, _ = images.shape
    height, width = min(side, rows), min(side, columns)
    top, left = (chance * (rows - height + 1, columns - width + 1)).astype(np.intp).T
    return Windows(lanes, top, left, height, width)
