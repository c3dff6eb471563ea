"""Learning rates by epoch, counted from 1 and set before the epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[int, int], float]
"""(epoch, epochs) → factor of the base learning rate."""


def step(drops: Sequence[float]) -> Schedule:
    """×0.1 at each drop, a share of the epochs: from epoch 80 of 120 on for a drop of 80/120.

    The first epoch always has the base rate, however short the run.
    """

    def factor(epoch: int, epochs: int) -> float:
        passed = sum(epoch >= max(2, math.floor(drop * epochs + 0.5)) for drop in drops)
        return float(10.0**-passed)

    return factor


def cosine(epoch: int, epochs: int) -> float:
    """½·(1 + cos(π·(epoch − 1)/epochs)): 1 in the first epoch, near 0 in the last."""
    return 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs))


def constant(epoch: int, epochs: int) -> float:
    """Always 1."""
    return 1.0


def make_schedule(name: str, drops: Sequence[float]) -> Schedule:
    """The schedule of this name; `drops` concerns `step` alone."""
    return {"step": step(drops), "cosine": cosine, "constant": constant}[name]


SCHEDULES = ("step", "cosine", "constant")
