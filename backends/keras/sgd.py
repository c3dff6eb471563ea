"""Stochastic gradient descent as PyTorch defines it, for Keras."""

from __future__ import annotations

import numbers
from typing import Any

import keras
from keras import ops

from stcore.backends.keras.engine import native
from stcore.errors import UsageError
from stcore.protocols import Tensor


@keras.saving.register_keras_serializable("stcore")
class TorchSGD(keras.optimizers.Optimizer):  # type: ignore[misc]
    """SGD as in PyTorch: v ← μ·v + g + λ·w, then w ← w − η·v (Nesterov: w ← w − η·(g + λ·w + μ·v)).

    learning_rate: η, a number.   momentum: μ.   weight_decay: λ, coupled, on every tensor.   nesterov: see above.
    Keras' own SGD keeps η inside the velocity (so it departs from the published recipes after a drop of the
    rate), decouples λ, and rounds η and μ to float32. Here η and μ reach the update in the weights' dtype.
    Raises UsageError for a learning rate that is not a number, such as a schedule.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        name: str = "torch_sgd",
        **kwargs: Any,
    ) -> None:
        if not isinstance(learning_rate, numbers.Real):
            raise UsageError(
                f"learning_rate: expected a number; received {type(learning_rate).__qualname__}. "
                "Set optimizer.learning_rate between epochs, as keras.callbacks.LearningRateScheduler does"
            )
        super().__init__(learning_rate=float(learning_rate), name=name, **kwargs)
        self.momentum = momentum
        self.coupled_weight_decay = weight_decay
        self.nesterov = nesterov
        self._rate = self.add_variable((), dtype=native.available("float64"), name="rate")
        self._rate.assign(learning_rate)

    @property
    def learning_rate(self) -> Any:
        return self._rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._rate.assign(rate)

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self.velocities = [self.add_variable_from_reference(v, name="velocity") for v in variables]

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Any) -> None:
        # Native tensors: a Keras variable times a Python float may pass through float32.
        velocity = self.velocities[self._get_variable_index(variable)]
        weight, before = ops.convert_to_tensor(variable), ops.convert_to_tensor(velocity)
        rate, gradient = ops.cast(learning_rate, weight.dtype), ops.cast(gradient, weight.dtype)
        gradient = gradient + self.coupled_weight_decay * weight
        moved = self.momentum * before + gradient
        self.assign(velocity, moved)
        direction = gradient + self.momentum * moved if self.nesterov else moved
        self.assign_sub(variable, rate * direction)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        config.pop("weight_decay", None)
        return config | {
            "learning_rate": float(ops.convert_to_numpy(self._rate)),
            "momentum": self.momentum,
            "weight_decay": self.coupled_weight_decay,
            "nesterov": self.nesterov,
        }
