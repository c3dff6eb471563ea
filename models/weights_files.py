"""Weights files of either kind, by name and metadata: our .safetensors, and PyTorch's own of a state dict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stcore.base import weights_file
from stcore.models import torch_files

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
"""Of files that `torch.save` wrote; all others are safetensors."""


def read_weights(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Reads arrays by name, and metadata, which a file of PyTorch has none of; no code in it is run.

    Raises UsageError if the file is missing or damaged, holds no state dict, or holds something else than tensors.
    """
    if not is_torch(path):
        return weights_file.load_weights(path)
    return torch_files.read(path), {}


def is_torch(path: Path) -> bool:
    """Whether a file is, by its name, one of PyTorch."""
    return path.suffix.lower() in SUFFIXES
