"""The teacher of a run from a file: kept in the run's folder, so that a resumed run has the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore import models
from stcore.base import weights_file
from stcore.errors import UsageError
from stcore.models.weights_files import build_described, read_weights, recorded_shape
from stcore.protocols import Array

KEPT = "teacher.safetensors"


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network whose weights do not change, and what its file holds."""

    network: Any
    weights: Mapping[str, Array]
    metadata: Mapping[str, str]

    def keep(self, folder: Path) -> None:
        """Writes its weights into the run's folder."""
        weights_file.save_weights(folder / KEPT, self.weights, self.metadata)


def read_teacher(
    source: str, folder: Path | None, shape: tuple[tuple[int, int, int], int], backend: str, **options: Any
) -> Teacher:
    """A new network with the teacher's weights.

    source: a weights file of stcore, or zoo:NAME.   folder: that of a run begun before, where it is kept.
    shape: (H, W, C) of the run's images, and the number of its classes.   options: of `stcore.models.build`.
    Raises UsageError if the file is missing or damaged, does not say its network, or is of another shape.
    """
    kept = None if folder is None else folder / KEPT
    weights, metadata = read_weights(kept if kept is not None and kept.is_file() else source)
    known, name = recorded_shape(metadata), metadata.get("model")
    if known is None or name is None:
        raise UsageError(
            f"teacher: expected weights of stcli train or import, which say their network; {source} does not. "
            "Import it by stcli import"
        )
    if known != shape:
        raise UsageError(f"teacher: expected a network of {_said(shape)}; {source} is of {_said(known)}")
    if models.is_given(name) or models.is_factory(name):
        raise UsageError(
            f"teacher: expected a network of stcore, timm or keras.applications, which its name builds; received "
            f"{name}, which is code. Take one of these"
        )
    network = build_described(metadata, backend, **options)
    models.load_weights(network, weights)
    return Teacher(network, weights, metadata)


def _said(shape: tuple[tuple[int, int, int], int]) -> str:
    (height, width, channels), classes = shape
    return f"{height}×{width}×{channels} images in {classes} classes"
