"""Gradient checkpointing: activations that the way back computes again, instead of their being kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from stcore.backends.keras.scope import Scope
from stcore.protocols import Tensor


def recomputed(model: Any, forward: Callable[[Tensor], Tensor], x: Tensor, *, weights: bool) -> Tensor:
    """`forward(x)`, of which x alone is kept for the way back: of several, one at a time is there as a whole.

    Not by layers: each of them keeps its input, which is all that most would let go of. What is recomputed is the
    same, dropout's masks too, for it is a pure function of the variables' values before; what it writes to them
    is a result like the logits, and is written once.
    weights: whether gradients are asked for of the trainable weights, and not of x alone.
    """
    trainable = model.trainable_variables if weights else []
    held = model.non_trainable_variables if weights else model.variables
    constants = [(variable, ops.copy(variable)) for variable in held]  # the values as they are
    written: list[Any] = []

    def pure(x: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        with Scope([*zip(trainable, values, strict=True), *constants]) as scope:
            logits = forward(x)
        written[:] = scope.written.values()
        return (logits, *scope.writes())

    # Copies, since TensorFlow would count the gradient of a variable twice: as an argument and as a variable.
    logits, *values = keras.remat(pure)(x, *map(ops.copy, trainable))
    for variable, value in zip(written, values, strict=True):
        variable.assign(value)
    return logits
