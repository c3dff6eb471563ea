"""The state of training, and the protocols of its store and of a trainer that restores it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from stcore.core.objective import Objective
from stcore.protocols import Array


class TrainingStore(Protocol):
    """Keeps weights, metrics and states of a run."""

    def save(self, name: str, epoch: str) -> None:
        """Keeps the learner's weights as `best` or `last`, the averaged ones as `best-ema` or `last-ema`."""

    def promote(self, name: str) -> None:
        """Keeps as `best` what was saved last as `last`, or as `best-ema` what was saved as `last-ema`."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Keeps an epoch's metrics."""

    def due(self) -> bool:
        """Whether it is time to keep the state again."""

    def keep(self, state: State) -> None:
        """Keeps the state to resume from."""

    def keep_good(self, state: State) -> None:
        """Keeps the state that a rollback restores, in place of the last one."""

    def rewind(self, state: State) -> None:
        """Keeps this state, and deletes later ones and the metrics logged after it."""


class State(NamedTuple):
    """The complete state of training: host arrays by name, and its progress in JSON's types."""

    arrays: Mapping[str, Array]
    progress: Mapping[str, Any]


class Restorable(Protocol):
    """The part of a trainer that a failure policy uses."""

    @property
    def method(self) -> Objective:
        """The objective in force."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """The metrics of the finished epochs."""

    @property
    def store(self) -> TrainingStore:
        """Where states are kept."""

    @property
    def at_start(self) -> bool:
        """Whether nothing has been trained yet."""

    def state(self) -> State:
        """The complete state now."""

    def keep(self, put: Callable[[State], None]) -> None:
        """Gives the state to a method of the store, on the rank that writes."""

    def go_back(self, state: State) -> None:
        """Restores an earlier state of the same run."""
