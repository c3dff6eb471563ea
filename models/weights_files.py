"""Weights files by name and metadata: our .safetensors, PyTorch's own of a state dict, and Keras' own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stcore import zoo
from stcore.base import weights_file
from stcore.errors import UsageError
from stcore.models import normalization, origin, torch_files
from stcore.models.factory import build

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
"""Of files that `torch.save` wrote."""
KERAS = (".h5", ".keras")
"""Of files that Keras wrote; all others are safetensors."""


def read_weights(place: str | Path, model: Any = None) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Reads arrays by name, and metadata, which only our own files have; no code in a file is run.

    place: a file, or zoo:NAME.   model: its network, without which no file of Keras can be read.
    Raises UsageError if the file is missing or damaged, holds no state dict, or holds something else than tensors.
    """
    path = zoo.weights_path(place)
    if is_keras(path):
        if model is None or not hasattr(model, "get_weights"):
            raise UsageError(
                f"weights: expected a network in Keras for {path}, whose weights have no names of their own. Load "
                "it in Python, stcore.load(FILE, model=…), or start from it with --backend keras --init-weights"
            )
        from stcore.models import keras_files

        return keras_files.read(path, model), {}
    if not is_torch(path):
        return weights_file.load_weights(path)
    return torch_files.read(path), {}


def build_described(metadata: Mapping[str, str], backend: str, **options: Any) -> Any:
    """A new network as the metadata of a weights file say: its name, shape and normalisation, without the weights.

    metadata: with the shape (see `recorded_shape`).   options: of `stcore.models.build`.
    Raises UsageError as `check_weights` and `build` do.
    """
    shape = recorded_shape(metadata)
    if shape is None:
        raise UsageError("weights: expected those of stcore, which say the shape of their images; received others")
    (height, width, channels), classes = shape
    normalize = metadata.get("normalize", normalization.NONE)
    origin.check_weights(metadata, backend, normalize)
    return build(
        metadata["model"],
        backend,  # type: ignore[arg-type]
        num_classes=classes,
        in_channels=channels,
        image_size=(height, width),
        normalize=normalize,
        **options,
    )


def is_torch(path: Path) -> bool:
    """Whether a file is, by its name, one of PyTorch."""
    return path.suffix.lower() in SUFFIXES


def is_keras(path: Path) -> bool:
    """Whether a file is, by its name, one of Keras."""
    return path.suffix.lower() in KERAS


def recorded_shape(metadata: Mapping[str, str]) -> tuple[tuple[int, int, int], int] | None:
    """The shape (H, W, C) of the images and the number of classes, if a weights file says both."""
    shape = re.fullmatch(r"(\d+)x(\d+)x(\d+)", str(metadata.get("image_shape")))
    classes = re.fullmatch(r"\d+", str(metadata.get("num_classes")))
    if shape is None or classes is None:
        return None
    height, width, channels = map(int, shape.groups())
    return (height, width, channels), int(classes[0])
