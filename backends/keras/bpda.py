"""Another function's backward pass for layers of a model (see `stcore.attacks.bpda`), by their `call`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from stcore.attacks.bpda import Approximation, check_output, not_one_tensor
from stcore.backends.keras.calls import Call, operations, replaced
from stcore.backends.keras.engine import native
from stcore.errors import UsageError
from stcore.protocols import Tensor


def named_layers(model: Any) -> list[tuple[str, Any]]:
    """The layers inside a model with their names, and operations such as `keras.ops.round` of a functional one."""
    inside = [each for each in operations(model) if each is not model]
    return [(each.name, each) for each in inside if not isinstance(each, keras.layers.InputLayer)]


@contextmanager
def bpda(model: Any, layers: Sequence[tuple[str, Any, Approximation | None]]) -> Iterator[Any]:
    """Context in which these layers, each with the name that chose it, have other backward passes."""
    chosen = {id(layer): (name, approximation) for name, layer, approximation in layers}

    def with_other_gradient(layer: Any, call: Call) -> Call:
        name, approximation = chosen[id(layer)]
        return _with_other_gradient(name, call, approximation)

    with replaced([layer for _, layer, _ in layers], with_other_gradient):
        yield model


def _with_other_gradient(name: str, call: Call, approximation: Approximation | None) -> Call:
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
