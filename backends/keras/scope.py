"""A stateless scope that nests and records reads and writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
from keras.src.backend.common.stateless_scope import get_stateless_scope

from stcore.protocols import Tensor


class Scope(keras.StatelessScope):  # type: ignore[misc]
    """Keeps writes to variables inside; reads of other variables fall through to the enclosing scope.

    Keras' own scope ignores the enclosing one: a variable it does not map has its stale value from before both.
    """

    def __init__(self, values: Iterable[tuple[Any, Tensor]] = ()) -> None:
        super().__init__(values, initialize_variables=False)
        self.read: dict[int, Any] = {}
        """The variables read, by identity."""
        self.written: dict[int, Any] = {}
        """The variables assigned, by identity."""

    def __enter__(self) -> Scope:
        self._enclosing = get_stateless_scope()
        super().__enter__()
        return self

    def get_current_value(self, variable: Any) -> Tensor | None:
        """The value in the scope; None if no scope maps the variable, whose own value then holds."""
        self.read[id(variable)] = variable
        value = super().get_current_value(variable)
        if value is None and self._enclosing is not None:
            value = self._enclosing.get_current_value(variable)
        return value

    def add_update(self, update: tuple[Any, Tensor]) -> None:
        super().add_update(update)
        self.written[id(update[0])] = update[0]

    def writes(self) -> list[Tensor]:
        """The final values of the written variables, in order."""
        return [self.state_mapping[key] for key in self.written]
