"""Reference AutoAttack (the package `pyautoattack`) on any model, for comparison with stcore's own.

Croce and Hein, 2020; needs `pip install '.[autoattack]'` and PyTorch. A Keras model is run through a bridge. The
engine supports pixels in [0, 1] and float32 only, and its results depend on the batch size.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stcore.base import checks
from stcore.core import validation
from stcore.core.dispatch import backend_of, load_backend, make_classifier
from stcore.data.rows import Images
from stcore.errors import DataError, UsageError
from stcore.protocols import Array

REFERENCE_ATTACKS = {"apgd-ce": 2, "apgd-dlr": 3, "apgd-t": 4, "fab": 2, "fab-t": 2, "square": 2}
"""Each attack, with the smallest number of classes for which the reference does not crash."""

VERSIONS = {"standard": 4, "plus": 4, "rand": 3, "custom": 2}
"""Each version with its own attacks, likewise."""

_TILES = 5  # number of tiles across an image's height from which Square starts in l2 and l1


@dataclass(frozen=True)
class Settings:
    """The engine's settings, checked; see `run_reference`."""

    norm: str
    epsilon: float
    version: str
    attacks: Sequence[str] | None
    seed: int
    batch_size: int
    queries: int | None

    def __post_init__(self) -> None:
        checks.choice("norm", self.norm, ("linf", "l2", "l1"))
        checks.number("epsilon", self.epsilon)
        checks.choice("version", self.version, VERSIONS)
        checks.whole("seed", self.seed)
        checks.whole("batch_size", self.batch_size, low=1)
        if self.queries is not None:
            checks.whole("queries", self.queries, low=1)
        if self.attacks is None and self.version != "custom":
            return
        if not self.attacks or not set(self.attacks) <= set(REFERENCE_ATTACKS):
            raise UsageError(
                f"attacks: expected some of {', '.join(REFERENCE_ATTACKS)}; received {self.attacks!r}"
            )

    def check_model(self, classes: int, shape: Sequence[int]) -> None:
        """Raises UsageError if the reference would crash on images of this shape, (H, W, C) or flat (d,)."""
        least = (
            VERSIONS[self.version]
            if self.attacks is None
            else max(REFERENCE_ATTACKS[name] for name in self.attacks)
        )
        if classes < least:
            what = self.version if self.attacks is None else ", ".join(self.attacks)
            raise UsageError(f"attacks: expected at least {least} classes for {what}; received {classes}; {_OURS}")
        square = "square" in self.attacks if self.attacks is not None else self.version != "rand"
        if square and self.norm != "linf" and (len(shape) == 1 or shape[0] < _TILES):
            raise UsageError(
                f"attacks: expected images at least {_TILES} pixels high for square in {self.norm}; received "
                f"{tuple(shape)}; {_OURS}"
            )


_OURS = "the reference crashes there. Leave the attack out, or run stcore's own, which does not"


@dataclass(frozen=True, eq=False)
class ReferenceResult:
    """The result of the reference.

    adversarial: (N, H, W, C) or flat, float32; robust images unchanged.
    fooled: booleans (N,): a fresh forward of `adversarial` misses the label; also true if the natural image does.
    seconds: wall-clock time of the engine.   forwards, backwards: images × passes, as the engine made them.
    weight_gradients: whether some backward passes also computed weight gradients, which the attack does not need.
    """

    adversarial: Array
    fooled: Array
    seconds: float
    forwards: int
    backwards: int
    weight_gradients: bool


def run_reference(
    model: Any,
    images: Images,
    labels: Array,
    *,
    norm: str,
    epsilon: float,
    version: str = "standard",
    attacks: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 250,
    queries: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> ReferenceResult:
    """Runs the reference; weights, gradients, modes and global random state stay unchanged.

    model: a torch.nn.Module, a keras.Model, or a classifier of one.   images: host images (N, H, W, C) or flat
        (N, d), uint8 or floats in [0, 1].   labels: (N,), integers.   norm: linf, l2 or l1.   epsilon: radius of
        the ball, in units of pixels in [0, 1].
    attacks: names among `REFERENCE_ATTACKS`, in this order, with the settings of the version; by default the
        version's own. With `custom` the settings are the engine's defaults, such as five restarts of APGD.
    queries: of Square; 5000 by default.   progress: receives the engine's log, line by line.
    Raises UsageError for a value out of range, a missing package, or a case in which the reference would crash;
    DataError for images or labels out of range.
    """
    settings = Settings(norm, epsilon, version, attacks, seed, batch_size, queries)
    if importlib.util.find_spec("pyautoattack") is None:
        raise UsageError("reference: pyautoattack not installed; in the repository: pip install '.[autoattack]'")
    load_backend("torch")
    engine = importlib.import_module("stcore.backends.torch.reference")  # only this needs torch
    classifier: Any = model if hasattr(model, "host_images") else make_classifier(model)
    if np.ndim(images) not in (2, 4):
        raise DataError(f"x: expected images (N, H, W, C) or flat (N, d); received shape {np.shape(images)}")
    pixels, targets = classifier.host_pixels(np.asarray(images)), np.asarray(labels)
    validation.check_pixels(pixels)
    classes = validation.check_model(classifier, classifier.images(pixels[:1])) or 0
    validation.check_labels(targets, classes, len(pixels))
    settings.check_model(classes, pixels.shape[1:])

    outcome = engine.run(_torch_module(classifier.model), pixels, targets, settings, classes, progress)
    parts = (outcome.adversarial[i : i + batch_size] for i in range(0, len(pixels), batch_size))
    predicted = [classifier.eval_logits(classifier.images(part)).argmax(axis=1) for part in parts]
    return ReferenceResult(outcome.adversarial, np.concatenate(predicted) != targets, *outcome[1:])


def _torch_module(model: Any) -> Any:
    """Returns a torch module: the model, or a Keras model behind its bridge."""
    if backend_of(model) is load_backend("torch"):
        return model
    return importlib.import_module("stcore.backends.keras.bridge").KerasBridge(model)
