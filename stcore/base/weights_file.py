"""Weights files: safetensors with string metadata, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stcore.base.files import write_file
from stcore.errors import UsageError
from stcore.protocols import Array


def save_weights(path: Path, weights: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Safetensors with string metadata, moved into place when complete."""
    import numpy as np
    from safetensors.numpy import save

    metadata = {name: str(value) for name, value in metadata.items()}
    in_order = {name: np.asarray(array, order="C") for name, array in weights.items()}  # save trusts the memory
    write_file(path, save(in_order, metadata=metadata))


def load_weights(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Weights and metadata of a safetensors file; UsageError where it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UsageError(f"weights: expected a .safetensors file; {path} does not exist")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UsageError(f"weights: {path} is not a readable safetensors file ({error})") from error
