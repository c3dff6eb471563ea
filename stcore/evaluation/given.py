"""Images and labels as users give them, on the host and checked against their model."""

from __future__ import annotations

from typing import Any

import numpy as np

from stcore.base import checks
from stcore.core import validation
from stcore.errors import DataError, UsageError
from stcore.protocols import Array, Classifier


def on_host(classifier: Classifier, data: Any, batch_size: int) -> tuple[Array, Array]:
    """Host images (N, H, W, C), or flat, and integer labels (N,), checked against the model; data and errors as in
    `stcore.evaluate`."""
    x, y = _whole(classifier, data)
    validation.check_pixels(x)
    if len(x) != len(y):
        raise UsageError(f"data: expected as many labels as images; received {len(y)} and {len(x)}")
    checks.whole("batch_size", batch_size, 1)
    first = classifier.pixels(x[: min(batch_size, len(x))])
    num_classes = validation.check_model(classifier, first)
    labels = validation.hard_labels(y, num_classes or 0)
    return np.ascontiguousarray(classifier.host_images(classifier.host_pixels(x))), labels


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
