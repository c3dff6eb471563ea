"""Weights files: safetensors with string metadata and a checksum, written atomically."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stcore.base.files import write_file
from stcore.errors import UsageError
from stcore.protocols import Array

CHECKSUM = "checksum"
"""The entry of the metadata that covers all others and the arrays."""


def save_weights(path: Path, weights: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Writes arrays by name, and metadata as strings. Raises UsageError if the file cannot be written."""
    from safetensors.numpy import save

    about = {name: str(value) for name, value in metadata.items()}
    contiguous = {name: np.asarray(array, order="C") for name, array in weights.items()}  # save writes raw memory
    write_file(path, save(contiguous, metadata={**about, CHECKSUM: _of_file(contiguous, about)}))


def load_weights(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Reads arrays by name, and metadata, of a safetensors file.

    Raises UsageError if it is missing or damaged. A file of another program has no checksum, and is believed.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UsageError(f"weights: expected a .safetensors file; {path} does not exist")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UsageError(f"weights: {path} is not a readable safetensors file ({error})") from error
    if about.pop(CHECKSUM, None) not in (None, _of_file(arrays, about)):
        raise UsageError(f"weights: {path} is damaged: its contents are not what its checksum says. Restore it")
    return arrays, about


def _of_file(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    return digest(json.dumps(sorted((k, v) for k, v in metadata.items() if k != CHECKSUM)), arrays)


def digest(text: str, arrays: Mapping[str, Array]) -> str:
    """SHA-256 of a text and of the names, types, shapes and values of arrays."""
    found = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
