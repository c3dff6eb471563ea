"""The layers of a Keras model, for proofs (`stcore.bounds`)."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras.src.models.functional import Functional

from stcore.bounds.layers import Builder, Layers, same_padding, unsupported
from stcore.errors import UsageError
from stcore.models.keras_layers import Normalization, TorchBatchNormalization

_COPIES = (
    keras.layers.InputLayer,
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)


def read_layers(model: Any, shape: tuple[int, ...]) -> Layers:
    """The network's layers in EVAL mode, for pixels of this shape, (C, H, W) or (d,).

    Raises UsageError, in the layers' names, for one that no bound is known for, or a subclassed model.
    """
    containers = keras.Model | keras.layers.InputLayer
    dtypes = {layer.compute_dtype for layer in model._flatten_layers() if not isinstance(layer, containers)}
    if len(dtypes) > 1:
        raise unsupported(model.name, f"layers that compute in {' and '.join(sorted(dtypes))}")
    reader = _Reader(Builder(shape, *(dtypes or {model.compute_dtype})))
    return reader.builder.finish(reader.network(model, 0))


class _Reader:
    """Adds each layer of a functional or sequential model, from the outputs down."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def network(self, model: Any, value: int) -> int:
        """Adds a model, which may stand within another, on a value; returns the number of its output."""
        model = getattr(model, "_functional", model)
        if not isinstance(model, Functional) or len(model.inputs) != 1 or len(model.outputs) != 1:
            raise UsageError(
                "model: expected a functional or sequential model of one input and one output, whose layers "
                f"can be listed; received {model.name}, a {type(model).__name__}"
            )
        known = {id(model.inputs[0]): value}

        def number(tensor: Any) -> int:
            if id(tensor) not in known:
                history = tensor._keras_history
                node = history.operation._inbound_nodes[history.node_index]
                known[id(tensor)] = self._layer(history.operation, [number(each) for each in node.input_tensors])
            return known[id(tensor)]

        return number(model.outputs[0])

    def _layer(self, layer: Any, inputs: list[int]) -> int:
        if isinstance(layer, keras.Model):
            return self.network(layer, *inputs)
        if not type(layer).__module__.startswith(("keras.", "stcore.")):
            raise unsupported(layer.name, f"{type(layer).__name__}, a layer of one's own")
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            raise unsupported(layer.name, f"{type(layer).__name__} with data_format=channels_first")
        found = self._linear(layer, inputs) if len(inputs) == 1 else None
        if found is None:
            found = self._other(layer, inputs)
        if found is None:
            raise unsupported(layer.name, type(layer).__name__)
        return self._activation(layer, found)

    def _activation(self, layer: Any, value: int) -> int:
        match getattr(layer, "activation", None):
            case None | keras.activations.linear:
                return value
            case keras.activations.relu:
                return self.builder.relu(value, layer.name)
            case other:
                raise unsupported(layer.name, f"the activation {getattr(other, '__name__', other)}")

    def _linear(self, layer: Any, inputs: list[int]) -> int | None:
        """Adds a layer with weights, without its activation; None if it is another."""
        to, (value,), name = self.builder, inputs, layer.name
        match layer:
            case keras.layers.Conv2D() | keras.layers.DepthwiseConv2D():
                depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                kernel = _array(layer.kernel)  # (h, w, in / groups, out), depthwise (h, w, in, multiplier)
                weight = kernel.reshape(*kernel.shape[:2], 1, -1) if depthwise else kernel
                return to.conv(
                    value,
                    np.transpose(weight, (3, 2, 0, 1)),
                    _array(layer.bias) if layer.use_bias else None,
                    name,
                    stride=layer.strides,
                    padding=self._padding(layer, value, layer.kernel_size, layer.strides),
                    dilation=layer.dilation_rate,
                    groups=kernel.shape[2] if depthwise else layer.groups,
                )
            case keras.layers.Dense():
                return to.dense(
                    value, _array(layer.kernel).T, _array(layer.bias) if layer.use_bias else None, name
                )
            case keras.layers.BatchNormalization() | TorchBatchNormalization():
                if layer.axis not in (-1, len(to.shape(value))):
                    raise unsupported(name, f"a batch norm over axis {layer.axis}")
                mean, variance = _array(layer.moving_mean), _array(layer.moving_variance)
                gain = np.ones_like(mean) if layer.gamma is None else _array(layer.gamma)
                shift = np.zeros_like(mean) if layer.beta is None else _array(layer.beta)
                return to.batch_norm(value, mean, np.sqrt(variance + layer.epsilon), gain, shift, name)
            case Normalization():
                mean, std = (np.asarray(numbers, np.float64) for numbers in (layer.mean, layer.std))
                return to.normalize(value, mean, std, name)
            case keras.layers.Rescaling():
                factor, offset = (np.asarray(each, np.float64) for each in (layer.scale, layer.offset))
                if factor.size == offset.size == 1:
                    return to.scale(
                        value, factor.reshape(()), offset.reshape(()), np.abs(offset.reshape(())), name
                    )
        return None

    def _other(self, layer: Any, inputs: list[int]) -> int | None:
        """Adds a layer without weights; None if it is none that is known."""
        to, value, name = self.builder, inputs[0], layer.name
        match layer:
            case keras.layers.Add() if len(inputs) > 1:
                for other in inputs[1:]:
                    value = to.sum(value, other, name)
                return value
            case keras.layers.ReLU(max_value=None, negative_slope=0, threshold=0):
                return to.relu(value, name)
            case keras.layers.Flatten():
                return to.flatten(value, name, channels_last=True)
            case keras.layers.GlobalAveragePooling2D(keepdims=keep):
                return to.global_average(value, name, keep=keep)
            case keras.layers.AveragePooling2D(padding="valid"):
                return to.average_pool(value, layer.pool_size, layer.strides, name)
            case keras.layers.MaxPooling2D():
                padding = self._padding(layer, value, layer.pool_size, layer.strides)
                return to.max_pool(value, layer.pool_size, layer.strides, padding, name)
            case keras.layers.ZeroPadding2D():
                return to.pad(value, layer.padding, name)
            case keras.layers.Activation():
                return value
            case _:
                return value if isinstance(layer, _COPIES) else None

    def _padding(self, layer: Any, value: int, size: Any, stride: Any) -> Any:
        if layer.padding == "valid":
            return (0, 0), (0, 0)
        apart = getattr(layer, "dilation_rate", (1, 1))
        lengths = zip(self.builder.shape(value)[1:], size, stride, apart, strict=True)
        return tuple(same_padding(length, gap * (kernel - 1) + 1, step) for length, kernel, step, gap in lengths)


def _array(variable: Any) -> Any:
    return keras.ops.convert_to_numpy(variable).astype(np.float64)
