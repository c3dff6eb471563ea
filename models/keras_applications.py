"""Networks of keras.applications, with logits of any number of classes, for pixels in [0, 1].

Some include the preprocessing of their weights and take pixels in [0, 255]; for the others the library has a
function `preprocess_input`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from stcore.base.checks import did_you_mean
from stcore.errors import DataError, UsageError
from stcore.models import normalization
from stcore.models.description import Normalize
from stcore.models.keras_layers import Normalization


def build(
    name: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    normalize: Normalize | None,
    pretrained: bool,
) -> Any:
    """The convolutional part, global average pooling and a linear layer, in Keras' default dtype.

    Raises UsageError for an unknown name, for images that are too small, or for a second normalisation; DataError
    for weights that cannot be downloaded.
    """
    application = _application(name)
    preprocesses = _includes_preprocessing(application)
    if preprocesses and normalize is not None:
        raise UsageError(f"normalize: expected none with {name}, which normalises pixels by itself")
    pixels = keras.Input(input_shape, name="pixels")
    x = pixels
    if preprocesses:
        x = keras.layers.Rescaling(255.0, name="bytes")(pixels)
    elif normalize is not None:
        x = Normalization(normalize.mean, normalize.std, name="normalize")(pixels)
    try:
        body = application(
            include_top=False,
            weights="imagenet" if pretrained else None,
            input_tensor=x,
            input_shape=input_shape,
            pooling="avg",
        )
    except Exception as error:  # unsupported size, or no network connection
        if pretrained:
            raise DataError(f"pretrained: the weights of {name} cannot be had ({error})") from error
        raise UsageError(f"model: {name} cannot be built for images of {input_shape}: {error}") from error
    if pretrained:
        _check_same_layers(body, name)
        if _preprocessing(application)[2]:
            _convert_bgr_to_rgb(body)
    return keras.Model(pixels, keras.layers.Dense(num_classes, name="logits")(body.output), name=body.name)


def pretrained_normalization(name: str) -> str:
    """The normalisation of the ImageNet weights of this name, as `--normalize` takes it."""
    application = _application(name)
    if _includes_preprocessing(application):
        return normalization.NONE
    mean, std, _ = _preprocessing(application)
    return normalization.text_of(mean, std)


def _application(name: str) -> Callable[..., Any]:
    names = [item for item in dir(keras.applications) if inspect.isfunction(getattr(keras.applications, item))]
    member = name.partition(":")[2]
    if member not in names:
        hint = did_you_mean(member, names, at_most=3) or f" (available are {', '.join(names)})"
        raise UsageError(f"model: expected a network of keras.applications; received {member!r}{hint}")
    application: Callable[..., Any] = getattr(keras.applications, member)
    return application


def _includes_preprocessing(application: Callable[..., Any]) -> bool:
    """Whether the network includes its preprocessing: then `preprocess_input` does nothing."""
    mean, std, _ = _preprocessing(application)
    return not mean.any() and np.array_equal(std, np.full(3, 1 / 255))


def _preprocessing(application: Callable[..., Any]) -> tuple[Any, Any, bool]:
    """Mean and std for RGB pixels in [0, 1], and whether the weights expect BGR.

    Inferred from the output of `preprocess_input` for black, white and red.
    """
    preprocess = sys.modules[application.__module__].preprocess_input
    colours = np.array([[[[0.0, 0, 0], [255, 255, 255], [255, 0, 0]]]])
    black, white, red = preprocess(colours, data_format="channels_last")[0, 0]
    std = 1 / (white - black)
    mean, is_bgr = -black * std, bool(red[2] != black[2])
    return (mean[::-1], std[::-1], True) if is_bgr else (mean, std, False)


def _convert_bgr_to_rgb(body: Any) -> None:
    """Reverses the input channels of the first convolution."""
    first = next(layer for layer in body.layers if isinstance(layer, keras.layers.Conv2D))
    first.kernel.assign(np.asarray(first.kernel)[:, :, ::-1])


def _check_same_layers(body: Any, name: str) -> None:
    """Raises UsageError for EfficientNetB0 to B7, which have other layers with published weights than without."""
    if any(isinstance(layer, keras.layers.Normalization) and layer.weights for layer in body.layers):
        raise UsageError(
            f"pretrained: {name} cannot be rebuilt without its download, since Keras adds statistics and another "
            "layer to it; use an EfficientNetV2"
        )
