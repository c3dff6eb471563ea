"""Training images kept on the device as uint8 (see `stcore.data.resident`)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from stcore.data.augment import PAD, CropFlip, covered, windows
from stcore.protocols import Array


class Resident:
    """Copies images (N, H, W, C) to the device once; a call selects and augments some of them there."""

    def __init__(self, images: Array, device: torch.device, dtype: torch.dtype) -> None:
        self._images = torch.as_tensor(images, device=device)
        self._dtype = dtype
        # Divide by a tensor: for a Python number a GPU multiplies by 1/255, which rounds differently.
        exact = torch.float32 if dtype is torch.float32 else torch.float64
        self._white = torch.tensor(255, dtype=exact, device=device)

    def __call__(self, indices: Array, draws: CropFlip | None) -> Tensor:
        images = self._images[self._to_device(indices)]
        if draws is not None:
            rows, columns = map(self._to_device, windows(draws, *images.shape[1:3]))
            batch = torch.arange(len(images), device=images.device)[:, None, None]
            images = pad(images, (0, 0, PAD, PAD, PAD, PAD))[batch, rows[:, :, None], columns[:, None, :]]
            if draws.hole is not None:
                hidden = self._to_device(covered(draws.hole, *images.shape[1:3]))
                images = images.masked_fill(hidden[..., None], 0)
        # Permute before the division: channels last in memory, and not a view (see `TorchClassifier.images`).
        return (images.permute(0, 3, 1, 2) / self._white).to(self._dtype)

    def _to_device(self, array: Array) -> Tensor:
        return torch.as_tensor(array, device=self._images.device)


def free_memory(device: str) -> int:
    """Free memory of the device, in bytes; 0 if it shares the host's."""
    return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else 0
