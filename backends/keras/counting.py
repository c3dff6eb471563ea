"""Step counters of `fit`: epoch, examples seen, means of the metrics, and what a method tallies."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from stcore.backends.keras.engine import native
from stcore.protocols import Array, Tensor


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


class Tally:
    """The sum of a method's tallies since `take`; hidden from Keras, so that it is not saved."""

    def __init__(self) -> None:
        self._sum: Any = None

    def add(self, tally: Tensor) -> None:
        if self._sum is None:  # made while a step is traced, as in `Means`
            make = partial(keras.Variable, np.zeros(tuple(tally.shape)), dtype=tally.dtype, trainable=False)
            self._sum = native.eagerly(make)
        self._sum.assign_add(tally)

    def take(self) -> Array | None:
        """The sum on the host, None before the first tally; begins anew."""
        if self._sum is None:
            return None
        total: Array = ops.convert_to_numpy(self._sum)
        self._sum.assign(ops.zeros_like(self._sum))
        return total
