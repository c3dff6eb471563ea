"""Classifier and learner over a Keras model: forwards in a mode, gradients, updates."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, partial
from typing import Any

import keras
import numpy as np
from keras import ops

from stcore.backends.keras import folding, modes, noise, precision, snapshots
from stcore.backends.keras import ops as keras_ops
from stcore.backends.keras.engine import native
from stcore.backends.keras.recomputing import checkpointed
from stcore.backends.keras.resident import Resident
from stcore.backends.keras.scope import Scope
from stcore.backends.keras.taps import tapped
from stcore.core import validation
from stcore.core.equivalence import same_function
from stcore.data.pixels import unit_interval
from stcore.errors import HALF, UsageError
from stcore.protocols import Array, Metrics, Mode, Network, Ops, Tap, Tensor

DARK = 1 / 16
"""Networks whose first layers leave so small a range of pixels expect others: [0, 1] / 127.5 is 0.008."""


def build(model: Any, shape: tuple[int | None, ...]) -> None:
    """Builds a model that is not built yet, as a subclassed one, by a forward of images (B, *shape).

    Raises UsageError if a size is None, or if the forward fails.
    """
    if model.built:
        return
    sizes = [size for size in shape if size is not None]
    if len(sizes) < len(shape):
        raise UsageError(
            f"model: expected images of a known shape, on which it can be built; received {shape}. Call the model "
            "once on a batch, or say the shape in the pipeline by tf.ensure_shape"
        )
    with validation.answering((2, *sizes)):
        model(ops.full((2, *sizes), 0.5, dtype=model.variable_dtype), training=False)


def check_range(model: Any, bounds: tuple[float, float] = (0.0, 1.0)) -> None:
    """Raises UsageError if a network's first layers divide pixels in [0, 1] once more, as Rescaling(1/255) does.

    bounds: the range of the pixels.
    """
    scale = bounds[1] - bounds[0]
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.Rescaling):
            scale *= float(np.max(np.abs(layer.scale)))
        elif not isinstance(layer, keras.layers.InputLayer | keras.Model):
            break
    if scale < DARK:
        raise UsageError(
            f"model: expected a network of pixels in [{bounds[0]:g}, {bounds[1]:g}]; received one whose Rescaling "
            f"leaves a range of {scale:.2g}, and so takes 0–255. Give "
            "keras.Sequential([keras.layers.Rescaling(255), model]), or to a SqueezeModel an objective with "
            "bounds=(0, 255), whose settings are then in these units"
        )


class KerasClassifier:
    """`stcore.protocols.Classifier` over any `keras.Model` that maps pixels (B, …) to logits (B, C).

    Raises UsageError for a model that is not built or computes in float16.
    """

    ops: Ops = keras_ops
    compiled = True
    """Whether `compile` traces; otherwise every step runs eagerly."""
    xla = False
    """Whether XLA compiles the functions that TensorFlow traces."""

    def __init__(self, model: Any) -> None:
        self.model = model
        if not model.built:
            raise UsageError(
                "model: expected a built keras.Model; call it once on a batch, or give it a keras.Input"
            )
        if len(inputs := getattr(model, "inputs", None) or [None]) != 1:
            raise UsageError(f"model: expected one input, the pixels; received a model of {len(inputs)}")
        self._draws: list[tuple[Any, Tensor]] = []
        self.dtype: str = next((v.dtype for v in model.weights if "float" in v.dtype), "float32")
        if "float16" in {layer.compute_dtype for layer in model._flatten_layers()}:  # mixed precision, too
            raise UsageError(HALF)
        native.enable_dtype(self.dtype)

    def logits(self, x: Tensor, mode: Mode, *, dropout: bool = False) -> Tensor:
        if dropout:
            for variable, value in self._draws:
                variable.assign(value)
        return precision.as_logits(modes.forward(self.model, x, mode, dropout), self.dtype)

    @contextmanager
    def same_draws(self) -> Iterator[None]:
        self._draws = [(variable, ops.copy(variable)) for variable in modes.augmentation_seeds(self.model)]
        try:
            yield
        finally:
            self._draws = []

    def shape(self, x: Any) -> tuple[int | None, ...]:
        native.check_tensor(x, self.dtype)
        return tuple(x.shape)

    def signature(self) -> Hashable:
        return tuple(tuple(v.shape) for v in self.model.trainable_variables)

    def is_tracing(self, x: Any) -> bool:
        return native.is_tracing(x)

    def on_host(self, x: Any) -> bool:
        return native.on_host(x)

    def to_numpy(self, x: Any) -> Array | None:
        return native.to_numpy(x)

    def eval_logits(self, x: Tensor) -> Array | None:
        return native.to_numpy(keras_ops.unrecorded(lambda: self.logits(x, Mode.EVAL)))

    def trial_logits(self, x: Tensor) -> Array | None:
        def trial() -> Tensor:
            with Scope():  # discards the seeds that dropout writes
                return self.logits(x, Mode.BATCH, dropout=True)

        return native.to_numpy(keras_ops.unrecorded(trial))

    def pixels(self, array: Array) -> Tensor:
        return native.distribute(ops.convert_to_tensor(self.host_pixels(array), dtype=self.dtype))

    def host_pixels(self, array: Array) -> Array:
        return unit_interval(array, self.dtype)

    def staged(self, array: Array) -> Array:
        return array

    images = pixels  # Keras keeps channels last, as host images do

    def host_images(self, x: Tensor | Array) -> Array:
        return x if isinstance(x, np.ndarray) else keras_ops.to_numpy(x)

    def resident(self, images: Array) -> Resident:
        return Resident(images, self.dtype)

    def labels(self, array: Array) -> Tensor:
        fine = "float64" if self.dtype == "float64" else "float32"
        dtype = fine if array.dtype.kind == "f" else native.available("int64")
        return native.distribute(ops.convert_to_tensor(array, dtype=dtype))

    def compile(self, fn: Callable[..., Any], *, rowwise: bool = False) -> Callable[..., Any]:
        options = {"xla": True} if self.xla else {}
        return native.compile(fn, rowwise=rowwise, **options) if self.compiled else fn

    def tapped(self, tap: Tap) -> AbstractContextManager[None]:
        return tapped(self.model, tap)

    def weights(self) -> dict[str, Array]:
        from stcore.models import export_weights

        return export_weights(self.model)

    def load_weights(self, weights: Mapping[str, Array]) -> None:
        from stcore.models import load_weights

        load_weights(self.model, weights)

    def state(self) -> Sequence[Tensor]:
        return [ops.convert_to_tensor(variable) for variable in self._float_variables()]

    def blend(self, values: Sequence[Tensor], share: float) -> None:
        self._blend(list(values), ops.convert_to_tensor(share, native.available("float64")))

    @cached_property
    def _blend(self) -> Callable[[list[Tensor], Tensor], None]:
        """One traced function; not XLA's, which would round a product and a sum once."""

        def blend(values: list[Tensor], share: Tensor) -> None:
            for variable, value in zip(self._float_variables(), values, strict=True):
                move = ops.cast(share, variable.dtype) * (value - variable)
                variable.assign_add(ops.reshape(move, variable.shape))  # the first axis of what is traced is open

        return native.compile(blend) if self.compiled else blend

    def _float_variables(self) -> list[Any]:
        return [variable for variable in self.model.weights if "float" in variable.dtype]

    def snapshot(self) -> dict[str, Array]:
        return snapshots.variable_state("model", self.model.variables)

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        snapshots.restore_variables("model", self.model.variables, snapshot)

    def copy(self) -> KerasClassifier:
        clone = keras.models.clone_model(self.model)
        clone.set_weights(self.model.get_weights())
        return KerasClassifier(clone)

    def folded(self, x: Tensor) -> KerasClassifier:
        model = folding.folded(self.model)
        if model is None:
            return self
        copy = KerasClassifier(model)
        return copy if same_function(self, copy, x) else self


class KerasLearner(KerasClassifier):
    """`stcore.protocols.Learner`: the model with its `keras.optimizers` optimizer."""

    precision = inner_precision = "fp32"
    """Numeric precision of the outer forwards and of the search's: fp32, tf32 or bf16. All others use fp32."""
    gradient_checkpointing = False
    """Whether these forwards recompute their activations instead of keeping them."""

    def __init__(self, model: Any, optimizer: Any) -> None:
        super().__init__(model)
        self._outer = False
        self._assigned = modes.assigned_weights(model)
        self._noise: dict[Any, Callable[..., Any]] = {}
        self.optimizer = optimizer
        if not optimizer.built:
            optimizer.build(model.trainable_variables)  # a traced step cannot create variables

    def snapshot(self) -> dict[str, Array]:
        return super().snapshot() | snapshots.variable_state("optimizer", self.optimizer.variables)

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        super().restore(snapshot)
        snapshots.restore_variables("optimizer", self.optimizer.variables, snapshot)

    def noise(
        self, laws: tuple[str, ...], keys: Array, positions: Array, shape: tuple[int, ...]
    ) -> tuple[Tensor, ...]:
        if (laws, shape) not in self._noise:
            self._noise[laws, shape] = self.compile(partial(noise.draw, laws=laws, shape=shape))
        drawn = self._noise[laws, shape](self.labels(keys), self.labels(positions))
        return tuple(native.distribute(ops.cast(one, self.dtype)) for one in drawn)

    def value_and_grad(
        self, loss: Callable[[], tuple[Tensor, Metrics]]
    ) -> tuple[tuple[Tensor, Metrics], Sequence[Tensor | None]]:
        self._outer = True
        try:
            return native.value_and_grad(loss, self.model.trainable_variables)
        finally:
            self._outer = False

    def logits(self, x: Tensor, mode: Mode, *, dropout: bool = False) -> Tensor:
        if self._outer:
            return self.training_logits(self.precision, x, mode, dropout)
        return super().logits(x, mode, dropout=dropout)

    def training_logits(self, in_precision: str, x: Tensor, mode: Mode, dropout: bool) -> Tensor:
        """Logits of one training forward, outer or in the search, in this precision."""
        forward: Callable[[Tensor], Tensor] = partial(super().logits, mode=mode, dropout=dropout)
        if in_precision == "bf16":
            forward = precision.in_bfloat16(self.model, forward)
        if not self.gradient_checkpointing:
            return forward(x)
        return checkpointed(self.model, forward, x, weights=self._outer)

    def compile(self, fn: Callable[..., Any], *, rowwise: bool = False) -> Callable[..., Any]:
        compiled = super().compile(fn, rowwise=rowwise)
        trains = not rowwise  # only evaluations are rowwise
        uses_tf32 = trains and "tf32" in (self.precision, self.inner_precision)
        return precision.in_tensor_float_32(compiled) if uses_tf32 else compiled

    def summed(self, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return gradients  # replicas see the whole batch

    def apply_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        self.optimizer.apply(gradients, self.model.trainable_variables)

    def matrix_weights(self) -> Sequence[Tensor | None]:
        return [ops.convert_to_tensor(v) if len(v.shape) > 1 else None for v in self.model.trainable_variables]

    def shift(self, amounts: Sequence[Tensor | None], times: float = 1.0) -> None:
        for variable, amount in zip(self.model.trainable_variables, amounts, strict=True):
            if amount is not None:
                variable.assign_add(times * amount)

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        before = [(variable, ops.copy(variable)) for variable in self._assigned]
        yield
        for variable, value in before:
            variable.assign(value)

    def searching(self) -> Network:
        plain = self.inner_precision != "bf16" and not self.gradient_checkpointing
        return self if plain else precision.SearchNetwork(self.inner_precision, self.training_logits)

    def regularization_loss(self) -> Tensor | None:
        losses = self.model._get_regularization_losses()
        if len(self.model.losses) > len(losses):
            raise UsageError(
                "model: expected no losses of its own except weight regularisers; received activity regularisers "
                "or add_loss, whose value would come from the last of several forwards only. Remove them"
            )
        return sum(losses[1:], losses[0]) if losses else None

    def set_learning_rate(self, rate: float) -> None:
        self.optimizer.learning_rate = rate
