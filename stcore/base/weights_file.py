"""Weights files: safetensors with string metadata, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stcore.base.files import write_file
from stcore.errors import UsageError
from stcore.protocols import Array


def save_weights(path: Path, weights: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Writes arrays by name, and metadata as strings. Raises UsageError if the file cannot be written."""
    import numpy as np
    from safetensors.numpy import save

    metadata = {name: str(value) for name, value in metadata.items()}
    contiguous = {name: np.asarray(array, order="C") for name, array in weights.items()}  # save writes raw memory
    write_file(path, save(contiguous, metadata=metadata))


def load_weights(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Reads arrays by name, and metadata, of a safetensors file. Raises UsageError if it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UsageError(f"weights: expected a .safetensors file; {path} does not exist")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UsageError(f"weights: {path} is not a readable safetensors file ({error})") from error
