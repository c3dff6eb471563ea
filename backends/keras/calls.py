"""The layers of a model, and layers whose `call` is another one for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

Call = Callable[..., Any]


def operations(model: Any) -> list[Any]:
    """A model, the layers inside it, and operations such as `keras.ops.round` of a functional one, each once."""
    layers = model._flatten_layers()
    functional = [getattr(layer, "_functional", layer) for layer in layers if isinstance(layer, keras.Model)]
    inside = [operation for each in functional for operation in getattr(each, "operations", ())]
    return list({id(each): each for each in (*layers, *inside)}.values())


@contextmanager
def replaced(layers: Iterable[Any], replacement: Callable[[Any, Call], Call]) -> Iterator[None]:
    """Context in which each layer's `call` is `replacement(layer, call)`."""
    own = [(layer, vars(layer).get("call")) for layer in layers]
    try:
        for layer, _ in own:
            layer.call = replacement(layer, layer.call)
        yield
    finally:
        for layer, call in own:
            if call is not None:
                layer.call = call
            elif "call" in vars(layer):
                del layer.call
