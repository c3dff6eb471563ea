"""Builds a description as a Keras model, from (batch, height, width, channels) to logits (batch, classes)."""

from typing import Any

import keras

from stcore.models.description import (
    BatchNorm,
    Conv,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Node,
    Normalize,
    ReLU,
    Residual,
    Sequence,
    SiLU,
    Softplus,
    join,
)
from stcore.models.keras_layers import Normalization, TorchBatchNormalization


def build_model(node: Node, *, image_size: tuple[int, int], in_channels: int, name: str, dtype: str) -> Any:
    """The keras.Model of `node` with weights not yet set; layers are named by their dotted paths.

    dtype: policy of every layer. Does not use Keras' random generators.
    """
    pixels = keras.Input((*image_size, in_channels), dtype=dtype, name="pixels")
    logits = _apply(node, pixels, "", keras.DTypePolicy(dtype))
    return keras.Model(pixels, logits, name=name)


def _apply(node: Node, x: Any, path: str, dtype: Any) -> Any:
    layer = {"name": path, "dtype": dtype}
    match node:
        case Conv():
            return _convolve(node, x, path, dtype)
        case Normalize(mean, std):
            return Normalization(mean, std, **layer)(x)
        case BatchNorm(_, epsilon, update):
            return TorchBatchNormalization(momentum=1 - update, epsilon=epsilon, **layer)(x)
        case ReLU():
            return keras.layers.ReLU(**layer)(x)
        case SiLU():
            return keras.layers.Activation("silu", **layer)(x)
        case Softplus():
            return keras.layers.Activation("softplus", **layer)(x)
        case MaxPool(size):
            return keras.layers.MaxPooling2D(size, **layer)(x)
        case GlobalAveragePool():
            return keras.layers.GlobalAveragePooling2D(**layer)(x)
        case Linear(_, o):
            return keras.layers.Dense(o, kernel_initializer="zeros", **layer)(x)
        case Sequence(steps):
            for name, step in steps:
                x = _apply(step, x, join(path, name), dtype)
            return x
        case Residual(body, shortcut):
            straight = x if shortcut is None else _apply(shortcut, x, join(path, "shortcut"), dtype)
            add = keras.layers.Add(name=join(path, "add"), dtype=dtype)
            return add([_apply(body, x, path, dtype), straight])


def _convolve(conv: Conv, x: Any, path: str, dtype: Any) -> Any:
    # With stride 1 and an odd kernel, "same" pads kernel // 2 on both sides; with a larger stride it pads less on
    # the left and top than on the right and bottom, so a layer pads explicitly.
    margin = conv.kernel // 2 if conv.stride > 1 else 0
    if margin:
        x = keras.layers.ZeroPadding2D(margin, name=join(path, "pad"), dtype=dtype)(x)
    layer = keras.layers.Conv2D(
        conv.out_channels,
        conv.kernel,
        strides=conv.stride,
        padding="valid" if conv.stride > 1 else "same",
        use_bias=conv.bias,
        kernel_initializer="zeros",
        name=path,
        dtype=dtype,
    )
    return layer(x)
