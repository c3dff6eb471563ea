"""Noise drawn on the device."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

from keras import ops

from stcore.backends.keras.engine import native
from stcore.base import device_noise
from stcore.protocols import Tensor

_NUMBERS = cast(
    device_noise.Numbers,
    SimpleNamespace(
        right_shift=native.right_shift,
        log=ops.log,
        exp=ops.exp,
        sqrt=ops.sqrt,
        cos=ops.cos,
        sin=ops.sin,
        sum=ops.sum,
        concatenate=ops.concatenate,
        reshape=ops.reshape,
        as_float=lambda x: ops.cast(x, "float32"),
    ),
)


def draw(keys: Tensor, positions: Tensor, laws: Sequence[str], shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """`stcore.base.device_noise.draw` for host images of this shape."""
    counters = ops.arange(device_noise.counters(shape), dtype="int64")
    return device_noise.draw(_NUMBERS, laws, keys, positions, counters, shape)
