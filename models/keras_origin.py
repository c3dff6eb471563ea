"""Third-party networks in Keras: of keras.applications, or from a factory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras.src.backend.common import global_state

from stcore.errors import UsageError
from stcore.models import keras_applications, origin
from stcore.models.description import Normalize
from stcore.models.keras_layers import Normalization
from stcore.models.seeded import seeded


def build_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    seed: int,
    dtype: str,
    normalize: Normalize | None,
    pretrained: bool,
) -> Any:
    """The network of this name after the normalisation. Raises UsageError if there is no such network."""
    with _fresh_keras(seed, dtype):
        if name.startswith("keras.applications:"):
            return keras_applications.build(
                name,
                num_classes=num_classes,
                input_shape=(*image_size, in_channels),
                normalize=normalize,
                pretrained=pretrained,
            )
        model = origin.call_factory(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
        _check(model, name, dtype)
        if normalize is None:
            return model
        pixels = keras.Input((*image_size, in_channels), name="pixels")
        return keras.Model(pixels, model(Normalization(normalize.mean, normalize.std, name="normalize")(pixels)))


def _check(model: Any, name: str, dtype: str) -> None:
    if not isinstance(model, keras.Model):
        raise UsageError(f"model: expected {name} to return a keras.Model; received {type(model).__name__}")
    if not model.built:
        raise UsageError(f"model: expected {name} to return a built keras.Model; begin it with a keras.Input")
    others = {v.dtype for v in model.weights if "float" in v.dtype} - {dtype}
    if others:
        raise UsageError(
            f"model: expected weights of the default dtype, here {dtype}; {name} fixes {', '.join(sorted(others))}"
            ". Leave dtype out of its layers"
        )


_GLOBAL = ("object_name_uids", "dtype_policy", "global_random_seed", "global_seed_generator")


@contextmanager
def _fresh_keras(seed: int, dtype: str) -> Iterator[None]:
    """Keras as in a new process: counters of names, seeds and the default dtype; restores them afterwards.

    So two processes build the same network, whatever they built before.
    """
    before = {name: global_state.get_global_attribute(name) for name in _GLOBAL}
    floatx = keras.config.floatx()
    try:
        with seeded(seed) as number:
            for name in _GLOBAL:
                global_state.set_global_attribute(name, None)
            global_state.set_global_attribute("global_random_seed", number)
            keras.config.set_floatx(dtype)
            yield
    finally:
        keras.config.set_floatx(floatx)
        for name, value in before.items():
            global_state.set_global_attribute(name, value)
