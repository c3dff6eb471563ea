"""Folded copies of a network for faster EVAL forwards."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras.src.models.functional import Functional

from stcore.models.keras_layers import TorchBatchNormalization

_NORMS = (keras.layers.BatchNormalization, TorchBatchNormalization)


def folded(model: Any) -> Any | None:
    """A copy of a functional or sequential model with its batch norms folded into the convolutions before them.

    None if there is nothing to fold. TensorFlow does not fold by itself: weights are variables, and a backward
    pass needs the activations between the layers. The caller checks that the copy computes the same function.
    """
    model = getattr(model, "_functional", model)  # a sequential model wraps a functional one
    changed = any("call" in vars(layer) for layer in model._flatten_layers())  # a clone would call another
    pairs = _pairs(model) if isinstance(model, Functional) and not changed else {}
    if not pairs:
        return None
    try:
        return _clone_without_norms(model, pairs)
    except Exception:  # a custom layer may not support being cloned
        return None


def _clone_without_norms(model: Any, pairs: dict[str, Any]) -> Any:
    norms = {norm.name for norm in pairs.values()}

    def call(layer: Any, x: Any, *args: Any, **options: Any) -> Any:
        return x if layer.name in norms else layer(x, *args, **options)

    def clone(layer: Any) -> Any:
        config = layer.get_config() | ({"use_bias": True} if layer.name in pairs else {})
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if layer.weights and layer.name not in norms:
            weights = _folded(layer, pairs[layer.name]) if layer.name in pairs else layer.get_weights()
            copy.get_layer(layer.name).set_weights(weights)
    return copy


def _pairs(model: Any) -> dict[str, Any]:
    """Batch norms by the name of the convolution before them, which is called once and feeds nothing else."""
    pairs = {}
    for norm in model.layers:
        if type(norm) not in _NORMS or norm.axis not in (-1, 3) or len(norm._inbound_nodes) != 1:
            continue
        before = norm._inbound_nodes[0].input_tensors[0]._keras_history.operation
        if type(before) is not keras.layers.Conv2D or before.activation is not keras.activations.linear:
            continue
        if len(before._inbound_nodes) == len(before._outbound_nodes) == 1:
            pairs[before.name] = norm
    return pairs


def _folded(convolution: Any, norm: Any) -> list[Any]:
    """Kernel and bias of a convolution that includes the batch norm."""
    kernel, *bias = convolution.get_weights()
    mean, variance = np.asarray(norm.moving_mean), np.asarray(norm.moving_variance)
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.gamma is not None:
        scale = scale * np.asarray(norm.gamma)
    offset = 0 if norm.beta is None else np.asarray(norm.beta)
    return [kernel * scale, offset + ((bias[0] if bias else 0) - mean) * scale]
