"""Small PyTorch networks, around whose passes an attack's own work shows.

`provable` reads one of the networks that Wong, Schmidt, Metzen and Kolter (2018) trained to be provably robust on
CIFAR-10: cifar_small_8px.pth or cifar_small_36px.pth of the repository locuslab/convex_adversarial. `perceptron`
is a network for `PYTHONPATH=benchmarks stcli train --model small_networks:perceptron`.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

_MEAN, _SPREAD = (0.485, 0.456, 0.406), 0.225  # of ImageNet: they normalise by them, the third spread for all


class _Normalized(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network((x - self.mean) / _SPREAD)
        return logits


def provable(path: Path) -> nn.Module:
    """The released network of a .pth file, 0.9 million multiplications an image."""
    released = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    network = provable_layers()
    network.load_state_dict(released[0] if isinstance(released, list | tuple) else released)
    return _Normalized(network)


def provable_layers() -> nn.Sequential:
    """Its layers, under the names that the file gives them."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2048, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def perceptron(num_classes: int, in_channels: int, image_size: tuple[int, int]) -> nn.Module:
    """Two hidden layers of 64."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_channels * math.prod(image_size), 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )
