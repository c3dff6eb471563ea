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
from stcore.evaluation.attack_names import apart, named
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
    """Natural and robust accuracy of a `torch.nn.Module` or `keras.Model`, the robust one under each attack.

    data: (x, y), or batches of (x, y) such as a loader gives. x: pixels in [0, 1] in the model's own layout,
    (N, …), numpy or native; y: integer labels (N,).
    attacks: names at this `epsilon` and `norm` (`stcore.attacks.PRESETS`, `autoattack`, members of it joined by +
    such as `apgd-ce+square`), attacks, or a mapping of names to attacks.   batch_size: images at one time.
    progress: who is told how it goes on (see `stcore.base.progress`).
    Returns {"natural": Accuracy, name: Accuracy, …}. The model comes back as it was.
    Raises DataError for pixels or labels out of range, UsageError for an unknown attack or a batch size below 1.
    """
    classifier = make_classifier(model)
    images, y = on_host(classifier, data, batch_size)
    asked = named(attacks, epsilon, norm)
    by_batch, cascades = apart(asked)
    assessment = Assessment(Evaluator(classifier, by_batch, seed), cascades, images, y, batch_size=batch_size)
    found = assessment.run(progress or Silent())
    if found is None:  # nobody was there to stop it
        raise AssertionError
    return {name: found.accuracies[name] for name in ("natural", *asked)}


def on_host(classifier: Classifier, data: Any, batch_size: int) -> tuple[Array, Array]:
    """Images (N, H, W, C), or flat, and labels (N,) on the host, checked against the model; `data`, and what is
    raised, as in `evaluate`."""
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
    """Images and labels on the host, batches put together."""

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
