"""Pseudo-labels: a trained network labels unlabelled images as extra data (Carmon et al., 2019)."""

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
    """The most likely class (N,) of uint8 images (N, H, W, C) and its probability (N,) in [0, 1], in EVAL mode.

    Raises DivergedError if a logit is NaN or +∞, UsageError for a batch size below 1.
    """
    checks.whole("batch_size", batch_size, 1)
    evaluator = Evaluator(classifier, {})
    labels, confidence = np.empty(len(images), np.int64), np.empty(len(images), np.float32)
    for begin in range(0, len(images), batch_size):
        rows = slice(begin, begin + batch_size)
        logits = evaluator.logits(classifier.images(images[rows])).astype(np.float64)
        labels[rows] = logits.argmax(axis=1)
        confidence[rows] = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
        advance(len(logits))
    return labels, confidence


def keep(labels: Array, confidence: Array, least: float = 0.0, per_class: int | None = None) -> Array:
    """The sorted indices of images with at least this confidence, and per class only the most confident ones.

    labels, confidence: (N,).   least: in [0, 1].   per_class: the most images per class, or None.
    Raises UsageError for a value out of range, or if no image is left.
    """
    checks.number("min_confidence", least, high=1.0)
    if per_class is not None:
        checks.whole("per_class", per_class, 1)
    order = np.argsort(-confidence, kind="stable")
    order = order[confidence[order] >= least]
    kept = [order[labels[order] == label][:per_class] for label in np.unique(labels)]
    indices: Array = np.sort(np.concatenate(kept))
    if not len(indices):
        raise UsageError(
            f"min_confidence: expected a value that some images reach; received {least:g}, and the highest "
            f"confidence of {len(labels)} images is {confidence.max():.3g}. Lower it"
        )
    return indices
