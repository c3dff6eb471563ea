"""Weights files of either kind, by name and metadata: our .safetensors, and PyTorch's own of a state dict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stcore import zoo
from stcore.base import weights_file
from stcore.models import torch_files

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
"""Of files that `torch.save` wrote; all others are safetensors."""


def read_weights(place: str | Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Reads arrays by name, and metadata, which a file of PyTorch has none of; no code in it is run.

    place: a file, or zoo:NAME.
    Raises UsageError if the file is missing or damaged, holds no state dict, or holds something else than tensors.
    """
    path = zoo.weights_path(place)
    if not is_torch(path):
        return weights_file.load_weights(path)
    return torch_files.read(path), {}


def is_torch(path: Path) -> bool:
    """Whether a file is, by its name, one of PyTorch."""
    return path.suffix.lower() in SUFFIXES


def recorded_shape(metadata: Mapping[str, str]) -> tuple[tuple[int, int, int], int] | None:
    """The shape (H, W, C) of the images and the number of classes, if a weights file says both."""
    shape = re.fullmatch(r"(\d+)x(\d+)x(\d+)", str(metadata.get("image_shape")))
    classes = re.fullmatch(r"\d+", str(metadata.get("num_classes")))
    if shape is None or classes is None:
        return None
    height, width, channels = map(int, shape.groups())
    return (height, width, channels), int(classes[0])
