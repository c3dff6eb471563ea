"""`stcore.evaluate`: natural and robust accuracy of any model on any data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stcore.attacks import Attack
from stcore.autoattack.attack import AutoAttack
from stcore.base import checks
from stcore.base.progress import Progress, Silent
from stcore.core import validation
from stcore.core.dispatch import make_classifier
from stcore.errors import DataError, UsageError
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.assessment import Assessment
from stcore.evaluation.attack_names import attacks_by_name, split_cascades
from stcore.evaluation.evaluator import Evaluator
from stcore.protocols import Array, Classifier


def evaluate(
    model: Any,
    data: tuple[Any, Any] | Iterable[tuple[Any, Any]],
    attacks: Sequence[str | Attack | AutoAttack] | Mapping[str, Attack | AutoAttack] = ("fgsm", "pgd20"),
    *,
    epsilon: float = 8 / 255,
    norm: str = "linf",
    batch_size: int = 250,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Accuracy]:
    """Measures natural accuracy and robust accuracy under each attack, of a `torch.nn.Module` or `keras.Model`.

    model: maps pixels in [0, 1] to logits (B, C). Its weights, modes and gradients are unchanged afterwards.
    data: (x, y), or an iterable of batches (x, y) such as a loader. x: pixels (N, …) in [0, 1] in the model's own
        layout, numpy or native; y: integer labels (N,).
    attacks: names (`stcore.attacks.PRESETS`, `autoattack`, or its members joined by + such as `apgd-ce+square`),
        attacks, or a mapping of names to attacks.
    epsilon, norm: radius, in units of pixels in [0, 1], and norm of attacks given by name.
    batch_size: images per batch.   seed: of the attacks' random starts.
    progress: receives progress reports (see `stcore.base.progress`).
    Returns {"natural": Accuracy, name: Accuracy, …}.
    Raises DataError for pixels or labels out of range, UsageError for an unknown attack or a batch size below 1,
    DivergedError for a logit that is NaN or +∞.
    """
    classifier = make_classifier(model)
    images, y = on_host(classifier, data, batch_size)
    selected = attacks_by_name(attacks, epsilon, norm)
    by_batch, cascades = split_cascades(selected)
    assessment = Assessment(Evaluator(classifier, by_batch, seed), cascades, images, y, batch_size=batch_size)
    result = assessment.run(progress or Silent())
    if result is None:  # only a `stop` returns None
        raise AssertionError
    return {name: result.accuracies[name] for name in ("natural", *selected)}


def on_host(classifier: Classifier, data: Any, batch_size: int) -> tuple[Array, Array]:
    """Host images (N, H, W, C), or flat, and labels (N,), checked against the model; data and errors as in
    `evaluate`."""
    x, y = _whole(classifier, data)
    validation.check_pixels(x)
    if len(x) != len(y):
        raise UsageError(f"data: expected as many labels as images; received {len(y)} and {len(x)}")
    checks.whole("batch_size", batch_size, 1)
    first = classifier.pixels(x[: min(batch_size, len(x))])
    num_classes = validation.check_model(classifier, first)
    validation.check_labels(y, num_classes or 0)
    return np.ascontiguousarray(classifier.host_images(classifier.host_pixels(x))), y


def _whole(classifier: Classifier, data: Any) -> tuple[Array, Array]:
    """Images and labels on the host; batches are concatenated."""

    def host(part: Any) -> Array:
        return part if isinstance(part, np.ndarray) else np.asarray(classifier.to_numpy(part))

    if isinstance(data, tuple) and len(data) == 2:
        return host(data[0]), host(data[1])
    try:
        batches = [(host(x), host(y)) for x, y in data]
        x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    except (TypeError, ValueError) as error:
        raise DataError(
            "data: expected a tuple (x, y), or batches of (images, labels) of one shape as a loader gives; "
            f"received {type(data).__qualname__} ({error})"
        ) from error
    return x, y
