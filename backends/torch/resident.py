"""Training images kept on the device as uint8 (see `stcore.data.resident`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from stcore.data.crop_flip import PAD, CropFlip, as_table, hidden
from stcore.protocols import Array


class Resident:
    """Copies images (N, H, W, C) to the device once; a call copies an epoch's order and draws, as one array.

    It returns a function that selects and augments some of the images on the device.
    """

    def __init__(self, images: Array, device: torch.device, dtype: torch.dtype) -> None:
        self._images = torch.as_tensor(images, device=device)
        self._dtype = dtype
        # Divide by a tensor: for a Python number a GPU multiplies by 1/255, which rounds differently.
        exact = torch.float32 if dtype is torch.float32 else torch.float64
        self._white = torch.tensor(255, dtype=exact, device=device)

    def __call__(self, order: Array, draws: CropFlip | None) -> Callable[[slice], Tensor]:
        table = np.stack([order, *as_table(draws, *self._images.shape[1:3])])
        return partial(self._batch, torch.as_tensor(table, device=self._images.device))

    def _batch(self, table: Tensor, rows: slice) -> Tensor:
        indices, *drawn = table[:, rows]
        images = self._images[indices]
        if drawn:
            images = self._augmented(images, *drawn)
        # Permute before the division: channels last in memory, and not a view (see `TorchClassifier.images`).
        return (images.permute(0, 3, 1, 2) / self._white).to(self._dtype)

    def _augmented(self, images: Tensor, top: Tensor, left: Tensor, flip: Tensor, *corner: Tensor) -> Tensor:
        number, row, column = (torch.arange(count, device=images.device) for count in images.shape[:3])
        rows = top[:, None] + row
        columns = left[:, None] + torch.where(flip[:, None] > 0, column.flip(0), column)
        images = pad(images, (0, 0, PAD, PAD, PAD, PAD))[number[:, None, None], rows[:, :, None], columns[:, None]]
        if not corner:
            return images
        inside = []
        for places, first in zip((row, column), corner, strict=True):
            offset = places - first[:, None]
            inside.append((offset >= 0) & (offset < hidden(len(places))))
        return images.masked_fill((inside[0][:, :, None] & inside[1][:, None])[..., None], 0)


def free_memory(device: str) -> int:
    """Free memory of the device, in bytes; 0 if it shares the host's."""
    return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else 0
