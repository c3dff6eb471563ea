"""Noise drawn on the device."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import torch
from torch import Tensor

from stcore.base import device_noise

_NUMBERS = cast(
    device_noise.Numbers,
    SimpleNamespace(
        right_shift=torch.bitwise_right_shift,
        log=torch.log,
        exp=torch.exp,
        sqrt=torch.sqrt,
        cos=torch.cos,
        sin=torch.sin,
        sum=torch.sum,
        concatenate=torch.concatenate,
        reshape=torch.reshape,
        as_float=Tensor.float,
    ),
)


def draw(keys: Tensor, positions: Tensor, laws: Sequence[str], shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """`stcore.base.device_noise.draw` for host images of this shape; in PyTorch's layout."""
    counters = torch.arange(device_noise.counters(shape), device=positions.device)
    drawn = device_noise.draw(_NUMBERS, laws, keys, positions, counters, shape)
    return tuple(one.permute(0, 3, 1, 2) if one.ndim == 4 else one for one in drawn)
