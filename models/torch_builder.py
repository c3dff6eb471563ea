"""Builds a description as a torch module, from (batch, channels, height, width) to logits (batch, classes)."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from stcore.models.description import (
    BatchNorm,
    Conv,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Node,
    Normalize,
    ReLU,
    Residual,
    Sequence,
    SiLU,
    Softplus,
)
from stcore.models.torch_layers import Normalization


def build_module(node: Node, *, dtype: torch.dtype, device: torch.device | str | None) -> nn.Module:
    """The module of `node` with weights not yet set; its state_dict keys are the canonical names.

    Does not use torch's random generators: the module is first made without storage.
    """
    with torch.device("meta"):
        module = _module(node)
    module._apply(lambda tensor: _empty_like(tensor, dtype, device or "cpu"))  # type: ignore[no-untyped-call]
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.reset_running_stats()  # also num_batches_tracked, which is not a weight
    return module


def _empty_like(tensor: Tensor, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Storage for a meta tensor; `Module.to_empty` would import sympy for it, which takes 0.4 s."""
    floating = tensor.is_floating_point()
    return torch.empty(tensor.shape, dtype=dtype if floating else tensor.dtype, device=device)


class ResidualBlock(nn.Module):
    """body(x) + shortcut(x), or body(x) + x. The body's steps are its children, as the names require."""

    shortcut: nn.Module | None

    def __init__(self, body: "OrderedDict[str, nn.Module]", shortcut: nn.Module | None) -> None:
        super().__init__()
        self.steps = tuple(body)
        for name, module in body.items():
            self.add_module(name, module)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Features in, features out: (batch, channels, height, width)."""
        y = x
        for name in self.steps:
            y = getattr(self, name)(y)
        return y + (x if self.shortcut is None else self.shortcut(x))


class GlobalAverage(nn.Module):
    """The mean over height and width."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) in, (batch, channels) out."""
        return x.mean((2, 3))


def _module(node: Node) -> nn.Module:
    match node:
        case Normalize(mean, std):
            return Normalization(mean, std)
        case Conv(i, o, k, stride, bias):
            return nn.Conv2d(i, o, k, stride=stride, padding=k // 2, bias=bias)
        case BatchNorm(channels, epsilon, update):
            return nn.BatchNorm2d(channels, eps=epsilon, momentum=update)
        case ReLU():
            return nn.ReLU()
        case SiLU():
            return nn.SiLU()
        case Softplus():
            return nn.Softplus(threshold=40)  # the default, 20, is off by 2e-9 at the switch to linear
        case MaxPool(size):
            return nn.MaxPool2d(size)
        case GlobalAveragePool():
            return GlobalAverage()
        case Linear(i, o):
            return nn.Linear(i, o)
        case Sequence():
            return nn.Sequential(_children(node))
        case Residual(body, shortcut):
            return ResidualBlock(_children(body), None if shortcut is None else _module(shortcut))


def _children(sequence: Sequence) -> "OrderedDict[str, nn.Module]":
    return OrderedDict((name, _module(step)) for name, step in sequence.steps)
