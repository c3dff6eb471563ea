"""PyTorch layers for pixel normalisation by constants, which are in no state dict."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Normalization(nn.Module):
    """(x − mean) / std per channel, on (batch, channels, height, width)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.constants = {"mean": tuple(mean), "std": tuple(std)}
        for name, values in self.constants.items():
            self.register_buffer(name, torch.empty((len(values), 1, 1)), persistent=False)
        self._fill()

    def _apply(self, fn: Any, recurse: bool = True) -> "Normalization":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._fill()  # a change of dtype rounds the constants, and new storage is uninitialised
        return self

    def _fill(self) -> None:
        for name, values in self.constants.items():
            buffer = self.get_buffer(name)
            buffer.copy_(torch.tensor(values, dtype=torch.float64, device=buffer.device).reshape(buffer.shape))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Normalized(nn.Module):
    """A third-party network after a normalisation; its weights keep their names."""

    def __init__(self, normalization: Normalization, network: nn.Module) -> None:
        super().__init__()
        self.normalization, self.network = normalization, network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalization(x))
        return logits
