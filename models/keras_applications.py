"""The networks of keras.applications, with logits of as many classes as wanted, for pixels in [0, 1].

Some begin with the preprocessing that their weights want and take pixels in [0, 255]; of the others a function
beside them, `preprocess_input`, tells what it is.
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
    """The convolutional part, its features' average over the image, and a linear layer; in Keras' default dtype.

    UsageError for an unknown name, for images too small for it, or for a normalisation on top of its own.
    """
    application = _application(name)
    does_its_own = _own(application)
    if does_its_own and normalize is not None:
        raise UsageError(f"normalize: expected none with {name}, which normalises pixels by itself")
    pixels = keras.Input(input_shape, name="pixels")
    x = pixels
    if does_its_own:
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
    except Exception as error:  # no such size, or no network connection
        if pretrained:
            raise DataError(f"pretrained: the weights of {name} cannot be had ({error})") from error
        raise UsageError(f"model: {name} cannot be built for images of {input_shape}: {error}") from error
    if pretrained:
        _check_rebuilt(body, name)
        if _preprocessing(application)[2]:
            _turn(body)
    return keras.Model(pixels, keras.layers.Dense(num_classes, name="logits")(body.output), name=body.name)


def pretrained_normalization(name: str) -> str:
    """What the ImageNet weights of this name were trained with, as `--normalize` has it."""
    application = _application(name)
    if _own(application):
        return normalization.NONE
    mean, std, _ = _preprocessing(application)
    return normalization.text_of(mean, std)


def _application(name: str) -> Callable[..., Any]:
    known = [one for one in dir(keras.applications) if inspect.isfunction(getattr(keras.applications, one))]
    member = name.partition(":")[2]
    if member not in known:
        hint = did_you_mean(member, known, at_most=3) or f" (known are {', '.join(known)})"
        raise UsageError(f"model: expected a network of keras.applications; received {member!r}{hint}")
    application: Callable[..., Any] = getattr(keras.applications, member)
    return application


def _own(application: Callable[..., Any]) -> bool:
    """Whether the network itself begins with its preprocessing: then `preprocess_input` does nothing."""
    mean, std, _ = _preprocessing(application)
    return not mean.any() and np.array_equal(std, np.full(3, 1 / 255))


def _preprocessing(application: Callable[..., Any]) -> tuple[Any, Any, bool]:
    """Mean and std for red, green and blue pixels in [0, 1], and whether the weights want blue, green, red.

    Read off what `preprocess_input` makes of black, white and red.
    """
    preprocess = sys.modules[application.__module__].preprocess_input
    colours = np.array([[[[0.0, 0, 0], [255, 255, 255], [255, 0, 0]]]])
    black, white, red = preprocess(colours, data_format="channels_last")[0, 0]
    std = 1 / (white - black)
    mean, turned = -black * std, bool(red[2] != black[2])
    return (mean[::-1], std[::-1], True) if turned else (mean, std, False)


def _turn(body: Any) -> None:
    """From weights for blue, green, red to those for red, green, blue."""
    first = next(layer for layer in body.layers if isinstance(layer, keras.layers.Conv2D))
    first.kernel.assign(np.asarray(first.kernel)[:, :, ::-1])


def _check_rebuilt(body: Any, name: str) -> None:
    """UsageError for a network that has other layers with published weights than without: EfficientNetB0 to B7."""
    if any(isinstance(layer, keras.layers.Normalization) and layer.weights for layer in body.layers):
        raise UsageError(
            f"pretrained: {name} cannot be rebuilt without its download, as Keras puts statistics and another "
            "layer into it; take an EfficientNetV2"
        )
