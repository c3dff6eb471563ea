"""Pixels normalised within a PyTorch model, by constants that are in no state dict."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Normalization(nn.Module):
    """(x − mean) / std, channel by channel, on (batch, channels, height, width)."""

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
        self._fill()  # what went from float32 to float64, or from no storage to some, is not the constant any more
        return self

    def _fill(self) -> None:
        for name, values in self.constants.items():
            buffer = self.get_buffer(name)
            buffer.copy_(torch.tensor(values, dtype=torch.float64, device=buffer.device).reshape(buffer.shape))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Normalized(nn.Module):
    """Somebody's network behind a normalisation; its weights keep the names that the network gives them."""

    def __init__(self, normalization: Normalization, network: nn.Module) -> None:
        super().__init__()
        self.normalization, self.network = normalization, network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalization(x))
        return logits
