"""What a network costs, as its layers and the device tell: parameters, operations, memory."""

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
    """How many numbers training may change."""
    return sum(prod(variable.shape) for variable in learner.model.trainable_variables)


def forward_flops(learner: KerasLearner, images: Array) -> int | None:
    """Floating-point operations of one forward of an image: two to a multiply-accumulate of its convolutions and
    dense layers; the rest is not counted. None where these do not say what they put out, as in a model that is no
    graph of layers, or where others than they have matrices.
    """
    total = 0
    for layer in learner.model._flatten_layers(include_self=False):
        kernels = [variable for variable in layer.weights if len(variable.shape) > 1]
        own = [
            variable for variable in kernels if not any(variable is w for one in inner(layer) for w in one.weights)
        ]
        if not own:
            continue
        if not isinstance(layer, (*CONVOLUTIONS, keras.layers.Dense)):
            return None
        try:
            positions = prod(layer.output.shape[1:-1])
        except (AttributeError, TypeError, ValueError):  # in no graph, in several places of it, or of any size
            return None
        total += 2 * positions * sum(prod(kernel.shape) for kernel in own)
    return total


def inner(layer: Any) -> list[Any]:
    """The layers that a layer is made of."""
    return list(layer._flatten_layers(include_self=False))


def peak_bytes(device: str) -> int | None:
    """The most memory of the device that tensors have taken so far; None on a device that does not tell."""
    if device == "cpu":
        return None
    if keras.backend.backend() == "jax":
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    import tensorflow as tf

    return int(tf.config.experimental.get_memory_info(tf.config.list_logical_devices("GPU")[0].name[8:])["peak"])
