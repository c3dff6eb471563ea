"""Ranks: the processes that train one network together, each on its share of every batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

from stcore.protocols import Learner


class Ranks(Protocol):
    """This process among all ranks. Every rank calls each method, in the same order."""

    @property
    def rank(self) -> int:
        """This process's number, from 0. Only rank 0 writes files and prints."""

    @property
    def count(self) -> int:
        """The number of ranks."""

    def gather(self, value: Any) -> list[Any]:
        """Returns every rank's value, in order, on every rank; a plain Python object or host array."""

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Returns for each flag whether it is true on at least one rank."""

    def join(self, learner: Learner) -> Learner:
        """Returns the learner, made with the same settings on each rank, as one of a group.

        Its batch means and gradients are over all ranks' examples. All ranks have the weights of rank 0 and, after
        each update, its running statistics.
        """

    def attend(self) -> None:
        """Takes part in the snapshot that rank 0 makes of its learner, by sending what is this rank's own."""

    def lost(self, error: Exception) -> bool:
        """Returns whether this error only means that another rank is gone."""

    def leave(self) -> None:
        """Leaves the group, at the end of the work."""


def launched() -> int:
    """Returns the number of processes that a launcher such as torchrun started; 1 without one."""
    return _count("WORLD_SIZE")


def launched_here() -> int:
    """Returns how many of them run on this machine."""
    return max(1, _count("LOCAL_WORLD_SIZE"))


def _count(variable: str) -> int:
    text = os.environ.get(variable, "1")
    return int(text) if text.isdecimal() else 1


class Alone:
    """The only rank: a single process."""

    rank, count = 0, 1

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def any(self, *flags: bool) -> tuple[bool, ...]:
        return flags

    def join(self, learner: Learner) -> Learner:
        return learner

    def attend(self) -> None:
        """Nothing to send."""

    def lost(self, error: Exception) -> bool:
        return False

    def leave(self) -> None:
        """Nothing to do."""


def pieces(total: int, ranks: int = 1, parts: int = 1) -> list[list[slice]]:
    """Splits a batch of `total` examples among ranks, and each rank's share into `parts`; returns slices by rank.

    Slices are contiguous, in order, of sizes at most one apart, and of at least two examples, since one example
    has no batch statistics. A small batch has fewer parts; one too small for all ranks is taken whole by each.
    """
    too_small = total < 2 * ranks
    shares = [slice(0, total)] * ranks if too_small else split(slice(0, total), ranks)
    parts = max(1, min(parts, min(share.stop - share.start for share in shares) // 2))
    return [split(share, parts) for share in shares]


def shares(pieces: Sequence[Sequence[slice]]) -> list[float]:
    """Returns each part's share of the batch, over all ranks; the shares sum to one."""
    sizes = [sum(piece.stop - piece.start for piece in part) for part in zip(*pieces, strict=True)]
    return [size / sum(sizes) for size in sizes]


def split(where: slice, count: int) -> list[slice]:
    """Splits a slice into `count` contiguous ones, in order, of sizes at most one apart."""
    size = where.stop - where.start
    edges = [where.start + size * i // count for i in range(count + 1)]
    return [slice(begin, end) for begin, end in pairwise(edges)]
