"""Layers whose `call` is another one for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Call = Callable[..., Any]


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
