"""Gradient checkpointing: the backward pass recomputes activations instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from stcore.backends.keras.scope import Scope
from stcore.protocols import Tensor


def checkpointed(model: Any, forward: Callable[[Tensor], Tensor], x: Tensor, *, weights: bool) -> Tensor:
    """`forward(x)`, which keeps only x for the backward pass: of several forwards, one at a time has activations.

    Checkpoints the whole model rather than layers, since most layers hold little beside their input. The
    recomputation gives the same numbers, dropout masks included: it is a pure function of the variables' earlier
    values. Writes to variables are results like the logits and happen once.
    weights: whether the trainable weights are differentiated too, or x alone.
    """
    trainable = model.trainable_variables if weights else []
    fixed = model.non_trainable_variables if weights else model.variables
    constants = [(variable, ops.copy(variable)) for variable in fixed]  # the values before the forward
    written: list[Any] = []

    def pure(x: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        with Scope([*zip(trainable, values, strict=True), *constants]) as scope:
            logits = forward(x)
        written[:] = scope.written.values()
        return (logits, *scope.writes())

    # Copies: TensorFlow would count the gradient of a variable twice, as an argument and as a variable.
    logits, *values = keras.remat(pure)(x, *map(ops.copy, trainable))
    for variable, value in zip(written, values, strict=True):
        variable.assign(value)
    return logits
