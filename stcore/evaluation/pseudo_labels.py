"""Pseudo-labels: a trained network labels images that have none, as extra data (Carmon et al., 2019)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stcore.base import checks
from stcore.errors import UsageError
from stcore.evaluation.evaluator import Evaluator
from stcore.protocols import Array, Classifier


def label(
    classifier: Classifier, images: Array, batch_size: int, advance: Callable[[int], None] = lambda images: None
) -> tuple[Array, Array]:
    """uint8 images (N, H, W, C) → the likeliest class (N,) of each, and its probability (N,), in EVAL mode.

    DivergedError where a logit is not a number; UsageError for a batch size below 1.
    """
    checks.whole("batch_size", batch_size, 1)
    evaluator = Evaluator(classifier, {})
    labels, confidence = np.empty(len(images), np.int64), np.empty(len(images), np.float32)
    for begin in range(0, len(images), batch_size):
        where = slice(begin, begin + batch_size)
        logits = evaluator.logits(classifier.images(images[where])).astype(np.float64)
        labels[where] = logits.argmax(axis=1)
        confidence[where] = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
        advance(len(logits))
    return labels, confidence


def keep(labels: Array, confidence: Array, least: float = 0.0, per_class: int | None = None) -> Array:
    """The places, in order, of those at least this confident, and of each class only the so many most confident.

    UsageError for a value out of range, or where none is left.
    """
    checks.number("min_confidence", least, high=1.0)
    if per_class is not None:
        checks.whole("per_class", per_class, 1)
    order = np.argsort(-confidence, kind="stable")
    order = order[confidence[order] >= least]
    chosen = [order[labels[order] == one][:per_class] for one in np.unique(labels)]
    places: Array = np.sort(np.concatenate(chosen))
    if not len(places):
        raise UsageError(
            f"min_confidence: expected some images to be labelled so surely; received {least:g}, and the surest "
            f"of {len(labels)} has {confidence.max():.3g}. Lower it"
        )
    return places
