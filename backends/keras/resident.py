"""Training images kept on the device as uint8 (see `stcore.data.resident`)."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from stcore.backends.keras.engine import native
from stcore.data.augment import PAD, CropFlip, covered, windows
from stcore.protocols import Array, Tensor

ASSUMED = 4 << 30
"""Bytes assumed to be free on a GPU under TensorFlow, which does not report them."""


class Resident:
    """Copies images (N, H, W, C) to the device once; a call selects and augments some of them there."""

    def __init__(self, images: Array, dtype: str) -> None:
        self._images = ops.convert_to_tensor(images, dtype="uint8")
        # Quotients from numpy: they do not depend on how a device divides.
        self._shades = ops.convert_to_tensor(np.arange(256).astype(dtype) / 255, dtype=dtype)

    def __call__(self, indices: Array, draws: CropFlip | None) -> Tensor:
        images = ops.take(self._images, ops.convert_to_tensor(indices, dtype="int32"), axis=0)
        if draws is not None:
            count, height, width, channels = images.shape
            rows, columns = windows(draws, height, width)
            line = width + 2 * PAD
            size = (height + 2 * PAD) * line
            first = size * np.arange(count)[:, None] + line * rows
            pixels = ops.reshape(ops.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0))), (-1, channels))
            first, columns = (ops.convert_to_tensor(array, dtype="int32") for array in (first, columns))
            images = ops.take(pixels, ops.expand_dims(first, 2) + ops.expand_dims(columns, 1), axis=0)
            if draws.hole is not None:
                visible = ops.convert_to_tensor(~covered(draws.hole, height, width), dtype="uint8")
                images = images * ops.expand_dims(visible, 3)
        return native.distribute(ops.take(self._shades, ops.cast(images, "int32"), axis=0))


def free_memory(device: str) -> int:
    """Free memory of the device, in bytes; 0 if it shares the host's."""
    if device == "cpu":
        return 0
    if keras.backend.backend() == "jax":
        import jax

        stats = jax.devices()[0].memory_stats() or {}
        return int(stats.get("bytes_limit", 0)) - int(stats.get("bytes_in_use", 0))
    return ASSUMED
