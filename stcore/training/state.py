"""The state of a training run, and the protocols of what keeps it and what restores it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from stcore.protocols import Array


class TrainingStore(Protocol):
    """Who keeps what a run leaves."""

    def save(self, name: str, epoch: str) -> None:
        """Keeps the learner's weights as `best` or `last`, the averaged ones as `best-ema` or `last-ema`."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Keeps an epoch's metrics."""

    def due(self) -> bool:
        """Whether it is time to keep the state again."""

    def keep(self, state: State) -> None:
        """Keeps what training goes on from."""

    def keep_good(self, state: State) -> None:
        """Keeps what a rollback goes back to, in place of the one before."""

    def rewind(self, state: State) -> None:
        """Keeps this state, and forgets the later ones and what was logged after it."""


class State(NamedTuple):
    """What training goes on from, bit for bit: host arrays by name, and where it stands, in JSON's types."""

    arrays: Mapping[str, Array]
    progress: Mapping[str, Any]


class Restorable(Protocol):
    """A trainer, as far as a failure policy needs it."""

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

    def go_back(self, state: State) -> None:
        """Restores an earlier state of the same run."""
