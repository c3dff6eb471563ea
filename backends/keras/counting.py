"""Step counters of `fit`: epoch, examples seen, and means of the metrics."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from stcore.backends.keras.engine import native
from stcore.protocols import Tensor


class Clock:
    """The epoch and the number of its examples seen, as variables that traced steps read."""

    def __init__(self) -> None:
        self._epoch, self._seen = (
            keras.Variable(n, dtype=native.available("int64"), trainable=False) for n in (1, 0)
        )

    def begin(self, epoch: int) -> None:
        self._epoch.assign(epoch)
        self._seen.assign(0)

    def advance(self, examples: Tensor) -> tuple[Tensor, Tensor]:
        """The epoch and the position in it of the first of these examples."""
        epoch, first = self._epoch + 0, self._seen + 0  # sums hold the current values; a variable is read later
        self._seen.assign_add(ops.cast(examples, self._seen.dtype))
        return epoch, first


class Means:
    """Means of the objective's metrics over the examples so far; hidden from Keras, so that none is saved."""

    def __init__(self) -> None:
        self._means: dict[str, Any] = {}

    def update(self, metrics: Any, size: Tensor) -> dict[str, Tensor]:
        for name, value in metrics.items():
            if name not in self._means:  # made while a step is traced: a variable there would force a second trace
                self._means[name] = native.eagerly(keras.metrics.Mean, name)
            self._means[name].update_state(value, sample_weight=size)
        return {name: self._means[name].result() for name in metrics}

    def reset(self) -> None:
        for mean in self._means.values():
            mean.reset_state()
