"""What `fit` counts from step to step: where training stands, and the means of its metrics."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from stcore.backends.keras.engine import native
from stcore.protocols import Tensor


class Clock:
    """Where training stands: the epoch, and how many of its examples are done, for traced steps to read."""

    def __init__(self) -> None:
        self._epoch, self._seen = (keras.Variable(n, dtype="int64", trainable=False) for n in (1, 0))

    def begin(self, epoch: int) -> None:
        self._epoch.assign(epoch)
        self._seen.assign(0)

    def advance(self, examples: Tensor) -> tuple[Tensor, Tensor]:
        """The epoch, and the place in it of the first of these examples."""
        epoch, first = self._epoch + 0, self._seen + 0  # sums are values of now; a variable is read when used
        self._seen.assign_add(ops.cast(examples, "int64"))
        return epoch, first


class Means:
    """The objective's metrics, as means over the examples so far; out of Keras' sight, so that none is saved."""

    def __init__(self) -> None:
        self._means: dict[str, Any] = {}

    def update(self, metrics: Any, size: Tensor) -> dict[str, Tensor]:
        for name, value in metrics.items():
            if name not in self._means:  # known when a step is traced, where a variable would cost a second trace
                self._means[name] = native.in_thread(keras.metrics.Mean, name)
            self._means[name].update_state(value, sample_weight=size)
        return {name: self._means[name].result() for name in metrics}

    def reset(self) -> None:
        for mean in self._means.values():
            mean.reset_state()
