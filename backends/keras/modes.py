"""Forwards of a Keras model in a given `Mode`."""

from __future__ import annotations

from typing import Any

import keras
from keras.src.layers.preprocessing.image_preprocessing.base_image_preprocessing_layer import (
    BaseImagePreprocessingLayer,
)

from stcore.backends.keras.calls import Call, replaced
from stcore.backends.keras.scope import Scope
from stcore.base.locks import lock_of
from stcore.protocols import Mode, Tensor


def forward(model: Any, x: Tensor, mode: Mode, dropout: bool) -> Tensor:
    """Logits of x. BATCH is training behaviour in a scope that discards every write to a variable."""
    with lock_of(model):
        return _forward(model, x, mode, dropout)


def _forward(model: Any, x: Tensor, mode: Mode, dropout: bool) -> Tensor:
    if mode is Mode.EVAL:
        return model(x, training=False)
    with replaced([] if dropout else drawing_layers(model), _in_evaluation):
        if mode is Mode.TRAIN:
            return model(x, training=True)
        with Scope() as scope:
            logits = model(x, training=True)
    if dropout:  # keep the writes to the seeds, or the next forward would draw the same mask
        for layer in drawing_layers(model):
            for generator in layer._seed_generators:
                generator.state.assign(scope.get_current_value(generator.state))
    return logits


def drawing_layers(model: Any) -> list[Any]:
    """The layers that draw in training: those with a seed generator, such as Dropout and RandomFlip."""
    return [layer for layer in model._flatten_layers() if layer._seed_generators]


def augmentation_seeds(model: Any) -> list[Any]:
    """The seeds of the layers that augment images at random, such as RandomFlip; dropout and noise are none."""
    layers = [layer for layer in drawing_layers(model) if isinstance(layer, BaseImagePreprocessingLayer)]
    return [generator.state for layer in layers for generator in layer._seed_generators]


def assigned_weights(model: Any) -> list[Any]:
    """The trainable weights that a forward in training assigns, as SpectralNormalization does with its kernel.

    Found by one forward whose writes are discarded, if the model has a layer that could.
    """
    layers = model._flatten_layers(include_self=False)
    could = any(
        isinstance(each, keras.layers.Wrapper) or not type(each).__module__.startswith("keras.") for each in layers
    )
    if not could or not getattr(model, "inputs", None):
        return []
    (pixels,) = model.inputs
    with Scope() as scope:
        model(keras.ops.zeros((2, *pixels.shape[1:]), pixels.dtype), training=True)
    return [variable for variable in model.trainable_variables if id(variable) in scope.written]


def _in_evaluation(_: Any, call: Call) -> Call:
    def called(*args: Any, **options: Any) -> Any:
        return call(*args, **(options | {"training": False} if "training" in options else options))

    return called
