"""The processes that train one network together, each on its share of every batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

from stcore.protocols import Learner


class Ranks(Protocol):
    """Where this process stands among them. All of them call each method, in the same order."""

    @property
    def rank(self) -> int:
        """From 0, which alone writes and speaks."""

    @property
    def count(self) -> int:
        """How many there are."""

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in order, on every rank: a plain Python object or host array."""

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Of each flag whether it is up on at least one rank."""

    def join(self, learner: Learner) -> Learner:
        """The learner, made alike on each rank, as one of them: its means are over all ranks' examples, its
        gradients theirs, its weights and running statistics those of rank 0."""

    def lost(self, error: Exception) -> bool:
        """Whether this error says no more than that another rank is gone."""

    def leave(self) -> None:
        """At the end of the work."""


def launched() -> int:
    """How many processes a launcher such as torchrun started, of which this is one; 1 without one."""
    text = os.environ.get("WORLD_SIZE", "1")
    return int(text) if text.isdecimal() else 1


class Alone:
    """One process."""

    rank, count = 0, 1

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def any(self, *flags: bool) -> tuple[bool, ...]:
        return flags

    def join(self, learner: Learner) -> Learner:
        return learner

    def lost(self, error: Exception) -> bool:
        return False

    def leave(self) -> None:
        """Nothing to do."""


def pieces(total: int, ranks: int = 1, parts: int = 1) -> list[list[slice]]:
    """For each rank the places in a batch of so many that it takes, in so many parts one after another.

    Contiguous, in order, of sizes at most one apart, and each of at least two examples, since one has no batch
    statistics: a small batch has fewer parts, and one too small for all ranks is taken whole by each.
    """
    together = total < 2 * ranks
    own = [slice(0, total)] * ranks if together else split(slice(0, total), ranks)
    parts = max(1, min(parts, min(one.stop - one.start for one in own) // 2))
    return [split(one, parts) for one in own]


def shares(pieces: Sequence[Sequence[slice]]) -> list[float]:
    """The share of the batch that each part is, over all ranks; together one."""
    sizes = [sum(one.stop - one.start for one in part) for part in zip(*pieces, strict=True)]
    return [size / sum(sizes) for size in sizes]


def split(where: slice, count: int) -> list[slice]:
    """So many contiguous parts, in order, of sizes at most one apart."""
    size = where.stop - where.start
    edges = [where.start + size * place // count for place in range(count + 1)]
    return [slice(begin, end) for begin, end in pairwise(edges)]
