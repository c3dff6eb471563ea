"""Costs of a network in Keras: parameters, operations, memory."""

from __future__ import annotations

from math import prod
from typing import Any

import keras

from stcore.backends.keras.learner import KerasLearner
from stcore.protocols import Array

CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)


def parameters(learner: KerasLearner) -> int:
    """The number of trainable parameters."""
    return sum(prod(variable.shape) for variable in learner.model.trainable_variables)


def forward_flops(learner: KerasLearner, images: Array) -> int | None:
    """Floating-point operations of one forward of an image.

    Counts two per multiply-accumulate of convolutions and dense layers, and nothing else. None if a layer's output
    shape is unknown, as in a model that is not a graph of layers, or if other layers have weight matrices.
    """
    total = 0
    for layer in learner.model._flatten_layers(include_self=False):
        kernels = [variable for variable in layer.weights if len(variable.shape) > 1]
        nested = [weight for sublayer in sublayers(layer) for weight in sublayer.weights]
        own = [variable for variable in kernels if not any(variable is weight for weight in nested)]
        if not own:
            continue
        if not isinstance(layer, (*CONVOLUTIONS, keras.layers.Dense)):
            return None
        try:
            positions = prod(layer.output.shape[1:-1])
        except (AttributeError, TypeError, ValueError):  # in no graph, called several times, or of unknown size
            return None
        total += 2 * positions * sum(prod(kernel.shape) for kernel in own)
    return total


def sublayers(layer: Any) -> list[Any]:
    """The layers inside a layer."""
    return list(layer._flatten_layers(include_self=False))


def peak_bytes(device: str) -> int | None:
    """Peak memory of tensors on the device so far, in bytes; None if the device does not report it."""
    if device == "cpu":
        return None
    if keras.backend.backend() == "jax":
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    import tensorflow as tf

    return int(tf.config.experimental.get_memory_info(tf.config.list_logical_devices("GPU")[0].name[8:])["peak"])
