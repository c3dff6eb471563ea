"""What a run keeps from epoch to epoch for a method that remembers (`stcore.core.objective.Remembering`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stcore.base.ranks import Ranks
from stcore.base.snapshots import part
from stcore.core.objective import Objective, numbers_of, remember
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

    def tallies(self) -> list[Array | None]:
        """The tally of each rank, which all call this."""
        return self.ranks.gather(None if self.tally is None else self.learner.ops.to_numpy(self.tally))

    def turn(self, objective: Objective) -> None:
        """Remembers what an epoch tallied, and begins the next."""
        known = [each for each in self.tallies() if each is not None]
        if known:
            self.remembered = remember(objective, self.remembered, sum(known[1:], known[0]))
        self.tally = None

    def state(self) -> dict[str, Array]:
        """What `restore` restores, of all ranks, which all call this."""
        tallies = {f"{TALLY}/{rank}": tally for rank, tally in enumerate(self.tallies())}
        known = {REMEMBERED: self.remembered, **tallies}
        return {name: array for name, array in known.items() if array is not None}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Restores what `state` returned. Of more ranks than there are now, each has the tallies of several."""
        self.remembered, self.tally = arrays.get(REMEMBERED), None
        for name, array in sorted(part(arrays, f"{TALLY}/").items(), key=lambda item: int(item[0])):
            if int(name) % self.ranks.count == self.ranks.rank:
                self.add(self.learner.pixels(array))
