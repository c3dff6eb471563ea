"""The store of a run: weights with their metadata, metrics, states."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stcore import models
from stcore.base.version import __version__
from stcore.data import ImageData
from stcore.data.decoding import RESIZE
from stcore.data.images import TrainingImages
from stcore.errors import UsageError
from stcore.protocols import Learner
from stcore.runs.folder import RunFolder
from stcore.runs.plan import Plan
from stcore.runs.states import RunStates
from stcore.training.state import State
from stcore.training.trainer import Average

FORMAT = "stcore-weights-1"


def weights_metadata(plan: Plan, images: TrainingImages) -> dict[str, Any]:
    """The metadata of the plan's weights file, for a network of these images."""
    height, width, channels = images.image_shape
    return {
        "format": FORMAT,
        "stcore": __version__,
        "model": plan.model.name,
        "num_classes": images.num_classes,
        "image_shape": f"{height}x{width}x{channels}",
        "normalize": models.normalization.canonical(plan.model.normalize),
        "resize": RESIZE,
        "method": plan.method.name,
        "backend": plan.runtime.backend,
        **({} if images.class_names is None else {"class_names": json.dumps(images.class_names)}),
    }


def check_weights_metadata(metadata: Mapping[str, str], plan: Plan, images: ImageData) -> None:
    """UsageError unless a weights file is of the plan's network for these images."""
    models.check_weights(metadata, plan.runtime.backend, plan.model.normalize)
    for name in ("model", "num_classes", "image_shape"):
        expected = str(weights_metadata(plan, images)[name])
        if name in metadata and metadata[name] != expected:
            raise UsageError(f"weights: expected a checkpoint with {name} {expected}; received {metadata[name]}")


@dataclass
class RunStore:
    """Writes weights, averaged weights, metrics and states into the run folder."""

    folder: RunFolder
    states: RunStates
    learner: Learner
    average: Average | None
    metadata: Mapping[str, Any]
    on_row: Callable[[Mapping[str, Any]], None]

    def save(self, name: str, epoch: str) -> None:
        averaged = self.average is not None and name.endswith("-ema")
        model = self.average.evaluator.classifier if self.average and averaged else self.learner
        self.folder.write_weights(f"{name}.safetensors", model.weights(), {**self.metadata, "epoch": epoch})

    def promote(self, name: str) -> None:
        self.folder.copy_weights(f"{name.replace('best', 'last')}.safetensors", f"{name}.safetensors")

    def log(self, row: Mapping[str, Any]) -> None:
        self.folder.append_metrics(row)
        self.on_row(row)

    def due(self) -> bool:
        return self.states.due()

    def keep(self, state: State) -> None:
        self.states.keep(state)

    def keep_good(self, state: State) -> None:
        self.states.keep_good(state)

    def rewind(self, state: State) -> None:
        self.folder.write_metrics(state.progress["history"])
        self.states.keep(state)


class NullStore:
    """A store that writes nothing: for all ranks but the first, whose weights, metrics and states are the same."""

    def save(self, name: str, epoch: str) -> None:
        """Nothing is written."""

    def promote(self, name: str) -> None:
        """Nothing is written."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Nothing is written."""

    def due(self) -> bool:
        return False

    def keep(self, state: State) -> None:
        """Nothing is written."""

    def keep_good(self, state: State) -> None:
        """Nothing is written."""

    def rewind(self, state: State) -> None:
        """Nothing is undone."""
