"""SGD and AdamW as PyTorch defines them, for Keras."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from stcore.backends.keras.engine import native
from stcore.core.optimizers import ADAM_EPSILON, SGD, AdamW
from stcore.errors import UsageError
from stcore.models import trainable_weights
from stcore.protocols import Tensor


class TorchOptimizer(keras.optimizers.Optimizer):  # type: ignore[misc]
    """An optimizer whose numbers are PyTorch's, over drops of the rate too.

    learning_rate: η, a number.   weight_decay: λ, of every weight, or one for each in the order of `build`.
    shares: of the learning rate, one for each weight; by default all of it.
    Keras' own round η and other constants to float32; here they reach the update in the weights' dtype.
    Raises UsageError for a learning rate that is not a number, such as a schedule.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        weight_decay: float | Sequence[float] = 0.0,
        shares: Sequence[float] | None = None,
        name: str = "torch_optimizer",
        **kwargs: Any,
    ) -> None:
        if not isinstance(learning_rate, numbers.Real):
            raise UsageError(
                f"learning_rate: expected a number; received {type(learning_rate).__qualname__}. "
                "Set optimizer.learning_rate between epochs, as keras.callbacks.LearningRateScheduler does"
            )
        super().__init__(learning_rate=float(learning_rate), name=name, **kwargs)
        self.decays = tuple(weight_decay) if isinstance(weight_decay, Sequence) else weight_decay
        self.shares = None if shares is None else tuple(shares)
        self._rate = self.add_variable((), dtype=native.available("float64"), name="rate")
        self._rate.assign(learning_rate)

    @property
    def learning_rate(self) -> Any:
        return self._rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._rate.assign(rate)

    def _slots(self, variables: Any, name: str) -> list[Any]:
        return [self.add_variable_from_reference(v, name=name) for v in variables]

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Any) -> None:
        # Native tensors: a Keras variable times a Python float may pass through float32.
        index = self._get_variable_index(variable)
        weight = ops.convert_to_tensor(variable)
        rate, gradient = ops.cast(learning_rate, weight.dtype), ops.cast(gradient, weight.dtype)
        if self.shares is not None:
            rate = self.shares[index] * rate
        decay = self.decays[index] if isinstance(self.decays, tuple) else self.decays
        self._update(index, variable, weight, gradient, rate, decay)

    def _update(
        self, index: int, variable: Any, weight: Tensor, gradient: Tensor, rate: Tensor, decay: Any
    ) -> None:
        """Updates one variable, whose value is `weight`, and the optimizer's own of this index."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {
            "learning_rate": float(ops.convert_to_numpy(self._rate)),
            "weight_decay": self.decays,
            "shares": self.shares,
        }


@keras.saving.register_keras_serializable("stcore")
class TorchSGD(TorchOptimizer):
    """SGD as in PyTorch: v ← μ·v + g + λ·w, then w ← w − η·v (Nesterov: w ← w − η·(g + λ·w + μ·v)).

    learning_rate: η, a number.   momentum: μ.   weight_decay: λ, coupled.   nesterov: see above.   shares: see
    `TorchOptimizer`.
    Keras' own SGD keeps η inside the velocity, so that it departs from the published recipes after a drop of the
    rate, and decouples λ.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        weight_decay: float | Sequence[float] = 0.0,
        nesterov: bool = False,
        shares: Sequence[float] | None = None,
        name: str = "torch_sgd",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay, shares, name, **kwargs)
        self.momentum = momentum
        self.nesterov = nesterov

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self.velocities = self._slots(variables, "velocity")

    def _update(
        self, index: int, variable: Any, weight: Tensor, gradient: Tensor, rate: Tensor, decay: Any
    ) -> None:
        velocity = self.velocities[index]
        gradient = gradient + decay * weight
        moved = self.momentum * ops.convert_to_tensor(velocity) + gradient
        self.assign(velocity, moved)
        direction = gradient + self.momentum * moved if self.nesterov else moved
        self.assign_sub(variable, rate * direction)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"momentum": self.momentum, "nesterov": self.nesterov}


@keras.saving.register_keras_serializable("stcore")
class TorchAdamW(TorchOptimizer):
    """AdamW as in PyTorch: w ← w − η·λ·w − η·m̂ / (√v̂ + ε) (Loshchilov and Hutter, 2019).

    learning_rate: η, a number.   betas: of the running means m of the gradient and v of its square; m̂ and v̂ are
    these divided by 1 − βᵗ.   weight_decay: λ, decoupled.   epsilon: ε.   shares: see `TorchOptimizer`.
    Keras' own adds ε to √v before it corrects that. The step t is that of the optimizer, where PyTorch counts the
    steps in which a weight has a gradient.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float | Sequence[float] = 0.01,
        epsilon: float = ADAM_EPSILON,
        shares: Sequence[float] | None = None,
        name: str = "torch_adamw",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay, shares, name, **kwargs)
        self.betas = tuple(betas)
        self.epsilon = epsilon

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self.means = self._slots(variables, "mean")
        self.squares = self._slots(variables, "square")

    def _update(
        self, index: int, variable: Any, weight: Tensor, gradient: Tensor, rate: Tensor, decay: Any
    ) -> None:
        mean, square = self.means[index], self.squares[index]
        step = ops.cast(ops.convert_to_tensor(self.iterations) + 1, weight.dtype)
        of_mean, of_square = (-ops.expm1(math.log(beta) * step) if beta else 1.0 for beta in self.betas)
        before, squared = ops.convert_to_tensor(mean), ops.convert_to_tensor(square)
        moved = before + (1 - self.betas[0]) * (gradient - before)
        squared = self.betas[1] * squared + (1 - self.betas[1]) * gradient * gradient
        self.assign(mean, moved)
        self.assign(square, squared)
        length = ops.sqrt(squared) / ops.sqrt(of_square) + self.epsilon
        self.assign(variable, (1 - rate * decay) * weight - rate / of_mean * (moved / length))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"betas": self.betas, "epsilon": self.epsilon}


def make_optimizer(model: Any, settings: SGD | AdamW) -> TorchOptimizer:
    """The optimizer of all weights but those to freeze, which are trainable no more."""
    weights = trainable_weights(model)
    updates = settings.updates({name: tuple(weight.shape) for name, weight in weights.items()})
    for name, update in updates.items():
        if update is None:
            weights[name].trainable = False
    shares, decays = zip(*filter(None, updates.values()), strict=True)
    each: dict[str, Any] = {
        "shares": None if set(shares) == {1.0} else shares,
        "weight_decay": decays[0] if len(set(decays)) == 1 else decays,
    }
    if isinstance(settings, AdamW):
        return TorchAdamW(settings.learning_rate, settings.betas, **each)
    return TorchSGD(settings.learning_rate, settings.momentum, nesterov=settings.nesterov, **each)


def rate_of(optimizer: Any, model: Any) -> float:
    """The learning rate of an optimizer that the user made. Raises UsageError if it cannot train this model."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise UsageError(
            f"optimizer: expected a name or a keras.optimizers optimizer; received {type(optimizer).__qualname__}"
        )
    if not isinstance(getattr(optimizer, "_learning_rate", None), keras.Variable | None):
        raise UsageError(
            "optimizer: expected a number as its learning rate; received a schedule. Give the rate at the start, "
            "and the schedule by schedule= and warmup="
        )
    return float(ops.convert_to_numpy(optimizer.learning_rate))
