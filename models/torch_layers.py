"""Pixels normalised within a PyTorch model, by constants that are in no state dict."""

from collections.abc import Sequence

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
        self.reset()

    def reset(self) -> None:
        """Puts the constants in place, in the dtype that the module has now."""
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
