"""Training images kept on the device as uint8 (see `stcore.data.resident`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
from keras import ops

from stcore.backends.keras.engine import native
from stcore.data.crop_flip import PAD, CropFlip, as_table, hidden
from stcore.protocols import Array, Tensor

ASSUMED = 4 << 30
"""Bytes assumed to be free on a GPU under TensorFlow, which does not report them."""


class Resident:
    """Copies images (N, H, W, C) to the device once; a call copies an epoch's order and draws, as one array.

    It returns a function that selects and augments some of the images on the device.
    """

    def __init__(self, images: Array, dtype: str) -> None:
        self._images = ops.convert_to_tensor(images, dtype="uint8")
        # Quotients from numpy: they do not depend on how a device divides.
        self._shades = ops.convert_to_tensor(np.arange(256).astype(dtype) / 255, dtype=dtype)

    def __call__(self, order: Array, draws: CropFlip | None) -> Callable[[slice], Tensor]:
        table = np.stack([order, *as_table(draws, *self._images.shape[1:3])])
        # int64 where there is one: TensorFlow keeps int32 tensors in the host's memory.
        return partial(self._batch, ops.convert_to_tensor(table, dtype=native.available("int64")))

    def _batch(self, table: Tensor, rows: slice) -> Tensor:
        indices, *drawn = ops.unstack(table[:, rows], len(table))
        images = ops.take(self._images, indices, axis=0)
        if drawn:
            images = self._augmented(images, *drawn)
        return native.distribute(ops.take(self._shades, ops.cast(images, "int32"), axis=0))

    def _augmented(self, images: Tensor, top: Tensor, left: Tensor, flip: Tensor, *corner: Tensor) -> Tensor:
        channels = images.shape[3]
        number, row, column = (ops.arange(count, dtype=top.dtype) for count in images.shape[:3])
        line = len(column) + 2 * PAD
        size = (len(row) + 2 * PAD) * line
        first = size * number[:, None] + line * (top[:, None] + row)
        columns = left[:, None] + ops.where(flip[:, None] > 0, ops.flip(column), column)
        pixels = ops.reshape(ops.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0))), (-1, channels))
        images = ops.take(pixels, first[:, :, None] + columns[:, None], axis=0)
        if not corner:
            return images
        outside = []
        for places, start in zip((row, column), corner, strict=True):
            offset = places - start[:, None]
            outside.append((offset < 0) | (offset >= hidden(len(places))))
        visible = outside[0][:, :, None] | outside[1][:, None]
        return images * ops.cast(visible, "uint8")[..., None]


def free_memory(device: str) -> int:
    """Free memory of the device, in bytes; 0 if it shares the host's."""
    if device == "cpu":
        return 0
    if keras.backend.backend() == "jax":
        import jax

        stats = jax.devices()[0].memory_stats() or {}
        return int(stats.get("bytes_limit", 0)) - int(stats.get("bytes_in_use", 0))
    return ASSUMED
