"""A stateless scope that goes on from the one around it, and knows what happened within."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
from keras.src.backend.common.stateless_scope import get_stateless_scope

from stcore.protocols import Tensor


class Scope(keras.StatelessScope):  # type: ignore[misc]
    """Writes to variables stay within; what it does not map itself, it has from the scope around it.

    Keras' own scope forgets the one around it: a variable it does not map has its stale value from before both.
    """

    def __init__(self, values: Iterable[tuple[Any, Tensor]] = ()) -> None:
        super().__init__(values, initialize_variables=False)
        self.read: dict[int, Any] = {}
        """The variables that were asked for, by identity."""
        self.written: dict[int, Any] = {}
        """The variables that were assigned, by identity."""

    def __enter__(self) -> Scope:
        self._around = get_stateless_scope()
        super().__enter__()
        return self

    def get_current_value(self, variable: Any) -> Tensor | None:
        """As it is within; None where no scope has a say, and the variable's own value holds."""
        self.read[id(variable)] = variable
        value = super().get_current_value(variable)
        if value is None and self._around is not None:
            value = self._around.get_current_value(variable)
        return value

    def add_update(self, update: tuple[Any, Tensor]) -> None:
        super().add_update(update)
        self.written[id(update[0])] = update[0]

    def writes(self) -> list[Tensor]:
        """What the written variables hold at the end, in order."""
        return [self.state_mapping[key] for key in self.written]
