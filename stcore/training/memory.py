"""What a run keeps from epoch to epoch for a method that remembers (`stcore.core.objective.Remembering`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stcore.base.ranks import Ranks
from stcore.core.objective import Objective, Remembering, numbers_of
from stcore.protocols import Array, Learner, Tensor

REMEMBERED, TALLY = "remembered", "tally"


@dataclass
class Memory:
    """What is remembered of the epochs before, and the tally of the epoch so far, on this rank.

    Both stay None for a method that tallies nothing.
    """

    learner: Learner
    ranks: Ranks
    remembered: Array | None = None
    tally: Tensor | None = None

    def numbers(self, objective: Objective, epoch: int) -> tuple[Tensor, ...]:
        """The method's numbers of this epoch, on the device."""
        return tuple(self.learner.pixels(array) for array in numbers_of(objective, epoch, self.remembered))

    def add(self, tally: Tensor | None) -> None:
        """Adds a step's tally."""
        if tally is not None:
            self.tally = tally if self.tally is None else self.tally + tally

    def total(self) -> Array | None:
        """The tally of all ranks, which all call this."""
        own = None if self.tally is None else self.learner.ops.to_numpy(self.tally)
        known = [each for each in self.ranks.gather(own) if each is not None]
        return sum(known[1:], known[0]) if known else None

    def turn(self, objective: Objective) -> None:
        """Remembers what an epoch tallied, and begins the next."""
        total = self.total()
        if total is not None and isinstance(objective, Remembering):
            self.remembered = objective.remember(self.remembered, total)
        self.tally = None

    def state(self) -> dict[str, Array]:
        """What `restore` restores, of all ranks, which all call this."""
        both = {REMEMBERED: self.remembered, TALLY: self.total()}
        return {name: array for name, array in both.items() if array is not None}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Restores what `state` returned. Rank 0 has the tally of all ranks."""
        self.remembered, tally = arrays.get(REMEMBERED), arrays.get(TALLY)
        self.tally = None if tally is None or self.ranks.rank else self.learner.pixels(tally)
