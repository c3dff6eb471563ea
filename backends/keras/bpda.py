"""Another function's backward pass for layers of a model (see `stcore.attacks.bpda`), by their `call`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from stcore.attacks.bpda import Approximation, check_output, not_one_tensor
from stcore.backends.keras.engine import native
from stcore.errors import UsageError
from stcore.protocols import Tensor


def named_layers(model: Any) -> list[tuple[str, Any]]:
    """The layers inside a model with their names, and operations such as `keras.ops.round` of a functional one."""
    layers = model._flatten_layers()
    functional = [getattr(layer, "_functional", layer) for layer in layers if isinstance(layer, keras.Model)]
    operations = [operation for each in functional for operation in getattr(each, "operations", ())]
    inside = {id(each): each for each in (*layers, *operations) if each is not model}
    return [(each.name, each) for each in inside.values() if not isinstance(each, keras.layers.InputLayer)]


@contextmanager
def bpda(model: Any, layers: Sequence[tuple[str, Any, Approximation | None]]) -> Iterator[Any]:
    """Context in which these layers, each with the name that chose it, have other backward passes."""
    own = [(layer, vars(layer).get("call")) for _, layer, _ in layers]
    try:
        for name, layer, approximation in layers:
            layer.call = _with_other_gradient(name, layer.call, approximation)
        yield model
    finally:
        for layer, call in own:
            if call is not None:
                layer.call = call
            elif "call" in vars(layer):
                del layer.call


def _with_other_gradient(
    name: str, call: Callable[..., Any], approximation: Approximation | None
) -> Callable[..., Tensor]:
    def called(*args: Any, **options: Any) -> Tensor:
        output = call(*args, **options)
        inputs = [given for given in (*args, *options.values()) if keras.ops.is_tensor(given)]
        if len(inputs) != 1 or not keras.ops.is_tensor(output):
            raise not_one_tensor(name, output)
        through = inputs[0] if approximation is None else approximation(inputs[0])
        one, other = (
            (tuple(each.shape), keras.backend.standardize_dtype(each.dtype)) for each in (through, output)
        )
        try:
            check_output(name, one, other, approximation is None)
        except UsageError as error:
            error._keras_call_info_injected = True  # type: ignore[attr-defined]  # or Keras would add to its words
            raise
        value: Tensor = native.with_gradient_of(through, output)
        return value

    return called
