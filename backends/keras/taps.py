"""Taps between the layers of a Keras model: a function of what each layer takes and returns, by their `call`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import keras

from stcore.backends.keras.calls import Call, operations, replaced
from stcore.protocols import Tap


def tapped(model: Any, tap: Tap) -> AbstractContextManager[None]:
    """Context in which every floating tensor that a layer takes first or returns passes through `tap`.

    Operations of a functional model, such as `keras.ops.round`, are layers too.
    """

    def between(layer: Any, call: Call) -> Call:
        name = "" if layer is model else layer.name

        def called(*args: Any, **options: Any) -> Any:
            if args and _is_floating(args[0]):
                args = (tap(name, "input", args[0]), *args[1:])
            output = call(*args, **options)
            return tap(name, "output", output) if _is_floating(output) else output

        return called

    return replaced(operations(model), between)


def _is_floating(value: Any) -> bool:
    return bool(keras.ops.is_tensor(value)) and "float" in keras.backend.standardize_dtype(value.dtype)
