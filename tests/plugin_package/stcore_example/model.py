"""A network of two layers, in PyTorch."""

from torch import nn


def shallow(num_classes: int, in_channels: int, image_size: tuple[int, int]) -> nn.Module:
    height, width = image_size
    layers = nn.Linear(in_channels * height * width, 32), nn.ReLU(), nn.Linear(32, num_classes)
    return nn.Sequential(nn.Flatten(), *layers)
