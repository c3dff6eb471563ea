"""Forwards of a Keras model in a given `Mode`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stcore.backends.keras.scope import Scope
from stcore.protocols import Mode, Tensor

_STRENGTH = ("rate", "stddev")  # attributes of Dropout-like layers and of GaussianNoise that set their strength


def forward(model: Any, x: Tensor, mode: Mode, dropout: bool) -> Tensor:
    """Logits of x. BATCH is training behaviour in a scope that discards every write to a variable."""
    if mode is Mode.EVAL:
        return model(x, training=False)
    with _switched_off([] if dropout else dropout_layers(model)):
        if mode is Mode.TRAIN:
            return model(x, training=True)
        with Scope() as scope:
            logits = model(x, training=True)
    if dropout:  # keep the writes to the seeds, or the next forward would draw the same mask
        for layer in dropout_layers(model):
            state = layer.seed_generator.state
            state.assign(scope.get_current_value(state))
    return logits


def dropout_layers(model: Any) -> list[Any]:
    """The layers with random training behaviour."""
    return [layer for layer in model._flatten_layers() if _strength(layer) and hasattr(layer, "seed_generator")]


def _strength(layer: Any) -> str | None:
    return next((name for name in _STRENGTH if getattr(layer, name, 0)), None)


@contextmanager
def _switched_off(layers: list[Any]) -> Iterator[None]:
    before = [(layer, name, getattr(layer, name)) for layer in layers if (name := _strength(layer))]
    try:
        for layer, name, _ in before:
            setattr(layer, name, 0.0)
        yield
    finally:
        for layer, name, value in before:
            setattr(layer, name, value)
