"""What `fit` counts: epoch, examples seen, means of the metrics, and what a method remembers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from stcore.backends.keras.engine import native
from stcore.core.objective import Objective, numbers_of, remember
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


class Memory:
    """The numbers of a method in an epoch, and what its steps tally (see `Remembering`).

    Variables that traced steps read and write; hidden from Keras, so that none is saved.
    """

    def __init__(self) -> None:
        self._numbers: list[Any] = []
        self._tally: Any = None
        self.remembered: Array | None = None

    def start(self, objective: Objective, epoch: int, dtype: str) -> None:
        """Makes the variables of the numbers, of which the first step that is traced knows."""
        arrays = numbers_of(objective, epoch, self.remembered)
        self._numbers = [keras.Variable(array, dtype=dtype, trainable=False) for array in arrays]

    def begin(self, objective: Objective, epoch: int) -> None:
        """Remembers what the epoch before tallied, and has the numbers of this one."""
        if self._tally is not None:
            self.remembered = remember(objective, self.remembered, ops.convert_to_numpy(self._tally.value))
            self._tally.assign(ops.zeros_like(self._tally.value))
        if self._numbers:
            for variable, array in zip(self._numbers, numbers_of(objective, epoch, self.remembered), strict=True):
                variable.assign(array)

    def numbers(self) -> tuple[Tensor, ...]:
        return tuple(variable + 0.0 for variable in self._numbers)  # the current values; a variable is read later

    def add(self, tally: Tensor) -> None:
        """Adds a step's tally."""
        if self._tally is None:  # as in `Means`
            self._tally = native.eagerly(_zeros, tuple(tally.shape), keras.backend.standardize_dtype(tally.dtype))
        self._tally.assign_add(tally)


def _zeros(shape: tuple[int, ...], dtype: str) -> Any:
    return keras.Variable(np.zeros(shape, dtype), dtype=dtype, trainable=False)
