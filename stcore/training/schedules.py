"""Learning-rate schedules, by epoch (counted from 1); `one-cycle` by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[float, int], float]
"""(epoch, epochs) → factor of the base learning rate; 3.25 is a quarter into epoch 3."""

PEAK = 0.4
"""The share of training after which `one-cycle` is highest."""


TENTH = 0.1
"""The factor of a drop in most recipes."""


def step(drops: Sequence[float], drop_factor: float = TENTH) -> Schedule:
    """× drop_factor at each drop, a share of the epochs: from epoch 80 of 120 on for a drop of 80/120.

    The first epoch always has the base rate, however short the run.
    """

    def factor(epoch: float, epochs: int) -> float:
        passed = sum(epoch >= max(2, math.floor(drop * epochs + 0.5)) for drop in drops)
        return 1.0 / (1.0 / drop_factor) ** passed if drop_factor else float(not passed)  # 0.1² is not 0.01

    return factor


def cosine(epoch: float, epochs: int) -> float:
    """½·(1 + cos(π·(epoch − 1)/epochs)): 1 in the first epoch, near 0 in the last."""
    return 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs))


def constant(epoch: float, epochs: int) -> float:
    """Always 1."""
    return 1.0


def one_cycle(epoch: float, epochs: int) -> float:
    """Linear from 0 to 1 at two fifths of training, then linear to 0.

    Smith & Topin, 2018; Wong et al., 2020, train for few epochs with it.
    """
    done = (epoch - 1) / epochs
    return done / PEAK if done < PEAK else (1 - done) / (1 - PEAK)


def make_schedule(name: str, drops: Sequence[float], drop_factor: float = TENTH) -> Schedule:
    """The schedule of this name; `drops` and `drop_factor` concern `step` alone."""
    return {"step": step(drops, drop_factor), "cosine": cosine, "constant": constant, "one-cycle": one_cycle}[name]


SCHEDULES = ("step", "cosine", "constant", "one-cycle")
BY_STEP = ("one-cycle",)
"""The schedules whose rate changes with each step."""
