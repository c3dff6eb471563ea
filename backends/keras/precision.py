"""Numeric precision of the forward passes: float32, TensorFloat-32 on GPUs, or bfloat16 by layer policies.

Weights, losses and projections stay in the weights' dtype; logits leave `as_logits` in float32 or float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, TypeAlias, cast

import keras
from keras import ops

from stcore.backends.keras import ops as keras_ops
from stcore.backends.keras.engine import native
from stcore.core.outputs import FLOOR, is_one_logit, logits_of
from stcore.errors import DeviceError, UsageError
from stcore.models.keras_layers import Normalization
from stcore.protocols import Mode, Network, Ops, Tensor

Forward: TypeAlias = Callable[[str, Tensor, Mode, bool], Tensor]
"""Precision, pixels (B, …), mode, dropout → logits (B, C)."""

# Models and layers that prepare pixels: a pixel rounded to bfloat16 is off by half a grey level.
_IN_FLOAT32 = (keras.Model, Normalization, keras.layers.Normalization, keras.layers.Rescaling)


def check_precision(precision: str, inner_precision: str) -> None:
    """Raises DeviceError if the device lacks the precision, UsageError if one step would need two settings."""
    if "tf32" in (precision, inner_precision):
        if not native.has_tensor_float_32():
            raise DeviceError(
                "precision: expected a GPU of compute capability 8.0 or more for tf32; received none. Use "
                "fp32 or bf16"
            )
        if "fp32" in (precision, inner_precision):
            raise UsageError(
                "precision, inner_precision: expected fp32 or tf32 for both, since Keras switches TF32 for a "
                f"whole step; received {precision} and {inner_precision}. Use the same for both, or bf16 with tf32"
            )


@contextmanager
def evaluating(precision: str, device: str) -> Iterator[None]:
    """Context in which all products are in this precision, fp32 or tf32; the one before holds again after it.

    device: that of the process.   Raises DeviceError if it does not support the precision.
    """
    check_precision(precision, precision)
    with native.tensor_float_32() if precision == "tf32" else nullcontext():
        yield


def in_tensor_float_32(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` with TF32 on during each call."""

    def call(*args: Any) -> Any:
        with native.tensor_float_32():
            return fn(*args)

    return call


def as_logits(output: Any, weights: str) -> Tensor:
    """Returns the logits of a network's output, at least in float32: float64 if the weights are.

    However coarse the forward was, losses and searches are not. Raises UsageError if there is no reading.
    """
    logits = logits_of(output, ops.is_tensor)
    dtype = keras.backend.standardize_dtype(logits.dtype)
    if not keras.backend.is_float_dtype(dtype):
        raise UsageError(f"model: expected floating logits; received {dtype}, as argmax returns")
    fine = ops.cast(logits, "float64" if weights == "float64" else "float32")
    if is_one_logit(fine.shape):
        fine = ops.concatenate((ops.zeros_like(fine), fine), axis=1)
    return ops.maximum(fine, FLOOR)


def in_bfloat16(model: Any, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`forward` of the model in bfloat16."""

    def logits(x: Tensor) -> Tensor:
        with _mixed_bfloat16(model):
            return forward(x)

    return logits


@contextmanager
def _mixed_bfloat16(model: Any) -> Iterator[None]:
    """Gives float32 layers the mixed_bfloat16 policy, which casts inputs and weights; other policies stay."""
    before = [
        (layer, layer.dtype_policy)
        for layer in model._flatten_layers()
        if layer.dtype_policy.name == "float32" and not isinstance(layer, _IN_FLOAT32)
    ]
    policy = keras.DTypePolicy("mixed_bfloat16")
    try:
        for layer, _ in before:
            layer.dtype_policy = policy
        yield
    finally:
        for layer, own in before:
            layer.dtype_policy = own


def in_precision(classifier: Any, precision: str) -> Network:
    """The classifier with its forwards in this precision; TF32 is a setting of the whole step."""

    def logits(precision: str, x: Tensor, mode: Mode, dropout: bool) -> Tensor:
        return in_bfloat16(classifier.model, partial(classifier.logits, mode=mode, dropout=dropout))(x)

    return SearchNetwork(precision, logits) if precision == "bf16" else cast(Network, classifier)


class SearchNetwork:
    """A learner's network for the search for examples, in the precision of the search."""

    ops: Ops = keras_ops

    def __init__(self, precision: str, forward: Forward) -> None:
        self._precision, self._forward = precision, forward

    def logits(self, x: Tensor, mode: Mode, *, dropout: bool = False) -> Tensor:
        return self._forward(self._precision, x, mode, dropout)
