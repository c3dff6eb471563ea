"""Moves of the Square attack in l2 and l1: one window's perturbation becomes a bump in another.

Andriushchenko et al., 2020; l1 as in AutoAttack (Croce and Hein, 2021). Images are (n, H, W, C), sums per channel
(n, 1, 1, C).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from stcore.attacks import counter_random, l1_ball
from stcore.attacks.bumps import bumps
from stcore.attacks.counter_random import Keys
from stcore.attacks.windows import place
from stcore.protocols import Array

_TINY = 1e-12  # keeps a division by a zero norm finite, as published


@dataclass(frozen=True)
class L2:
    """The parts of a move that depend on the norm, for l2.

    decay: the k-th ring of a bump, counted from the middle, adds 1/k^decay to everything inside it.
    """

    epsilon: float
    bounds: tuple[float, float]
    decay: ClassVar[int] = 2

    def length(self, values: Array) -> Array:
        """Returns the norm of each channel: (n, h, w, C) → (n, 1, 1, C)."""
        length: Array = np.sqrt(_per_channel(values * values))
        return length

    def budget(self, delta: Array, inside: Array) -> Array:
        """Returns the norm of each channel's new window: that of both windows, plus a share of the unused ε."""
        unused = np.maximum(self.epsilon**2 - _per_image(delta * delta), 0) / delta.shape[3]
        budget: Array = np.sqrt(unused + _per_channel(inside * inside))
        return budget

    def settle(self, x: Array, delta: Array) -> Array:
        """Returns x + delta, scaled onto the ball's surface and then clipped to the bounds."""
        scale = self.epsilon / (np.sqrt(_per_image(delta * delta)) + _TINY)
        points: Array = np.clip(x + delta * scale, *self.bounds)
        return points


@dataclass(frozen=True)
class L1:
    """The parts of a move that depend on the norm, for l1."""

    epsilon: float
    bounds: tuple[float, float]
    decay: ClassVar[int] = 4

    def length(self, values: Array) -> Array:
        return _per_channel(np.abs(values))

    def budget(self, delta: Array, inside: Array) -> Array:
        """Returns C times too much, as published: the projection reduces it."""
        unused = np.maximum(self.epsilon - _per_image(np.abs(delta)), 0)
        budget: Array = unused + delta.shape[3] * self.length(inside)
        return budget

    def settle(self, x: Array, delta: Array) -> Array:
        """Returns x + delta, projected to slightly less than ε, to leave room for the rounding of the sum."""
        rows = (x.reshape(len(x), -1), delta.reshape(len(x), -1))
        inside = l1_ball.project(*rows, self.epsilon * (1 - 1e-6), self.bounds)
        points: Array = np.clip(x + inside.reshape(x.shape), *self.bounds)
        return points


Law: TypeAlias = L2 | L1
LAWS: dict[str, type[Law]] = {"l2": L2, "l1": L1}


def tiles(law: Law, x: Array, key: Keys) -> Array:
    """Returns the first points: five bumps across a square image, each with its own signs and direction."""
    (_, rows, columns, channels), dtype = x.shape, x.dtype
    side = max(math.isqrt(rows * columns) // 5, 1)
    height, width = min(side, rows), min(side, columns)
    down, across = rows // height, columns // width
    chance = counter_random.uniforms(key, (down, across, 1 + channels))
    grid = bumps(law, height, width, chance).astype(dtype).swapaxes(2, 3)
    grid = grid.reshape(len(x), down * height, across * width, channels)
    spare = (rows - down * height, columns - across * width)
    margins = [(0, 0), *((gap // 2, gap - gap // 2) for gap in spare), (0, 0)]
    return law.settle(x, np.pad(grid, margins))


def moved(law: Law, x: Array, best: Array, side: int, key: Keys) -> Array:
    """Returns the next points: removes the perturbation of one window, and adds its norm to another as a bump."""
    chance, lanes, delta = counter_random.uniforms(key, (5 + x.shape[3],)), np.arange(len(x)), best - x
    target, source = (place(pair, lanes, side, x.shape[1:3]) for pair in (chance[:, :2], chance[:, 2:4]))
    covered = np.zeros_like(x[..., :1])
    target.write(covered, 1)
    source.write(covered, 1)
    budget, old = law.budget(delta, delta * covered), target.read(delta)
    new = bumps(law, target.height, target.width, chance[:, 4:]).astype(x.dtype) + old / (law.length(old) + _TINY)
    source.write(delta, 0)
    target.write(delta, new / (law.length(new) + _TINY) * budget)
    return law.settle(x, delta)


def _per_channel(values: Array) -> Array:
    """Sums each channel, (n, h, w, C) → (n, 1, 1, C), over contiguous memory: rounds the same in any batch."""
    rows = np.ascontiguousarray(np.moveaxis(values, 3, 1)).reshape(len(values), values.shape[3], -1)
    total: Array = rows.sum(axis=2)
    return total[:, None, None, :]


def _per_image(values: Array) -> Array:
    """Sums each image: (n, h, w, C) → (n, 1, 1, 1)."""
    total: Array = _per_channel(values).sum(axis=3, keepdims=True)
    return total
