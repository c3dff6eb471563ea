"""Bumps of the Square attack in l2 and l1: a hill beside a valley, with norm one.

The perturbations consist of them (Andriushchenko et al., 2020).
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import ClassVar, Protocol

import numpy as np

from stcore.protocols import Array


class Law(Hashable, Protocol):
    """What a bump depends on: its steepness, and the norm of a channel."""

    decay: ClassVar[int]
    """The k-th ring of a hill from its middle adds 1/k^decay to all within it."""

    def length(self, values: Array) -> Array:
        """Returns the norm of each channel: (n, h, w, C) → (n, 1, 1, C)."""


def bumps(law: Law, height: int, width: int, chance: Array) -> Array:
    """Makes bumps: chance (…, 1 + C) in [0, 1) → (…, height, width, C).

    The first number decides between upright and lying, the others the sign of each channel.
    """
    shapes = _shapes(law, height, width)[(chance[..., 0] < 0.5).astype(np.intp)]
    signs: Array = np.where(chance[..., 1:] < 0.5, -1, 1)[..., None, None, :]
    return shapes[..., None] * signs


@cache
def _shapes(law: Law, height: int, width: int) -> Array:
    """Returns (2, height, width): a hill and a valley, together of norm one: stacked, and side by side."""

    def pair(height: int, width: int) -> Array:
        halves = (_hill(law, height // 2, width), -_hill(law, height - height // 2, width))
        return _unit(law, np.concatenate(halves))

    return np.stack((pair(height, width), pair(width, height).T))


def _hill(law: Law, height: int, width: int) -> Array:
    """Returns square rings around the middle pixel, higher towards it; of norm one."""
    rows, columns = (np.abs(np.arange(size) - size // 2) for size in (height, width))
    rings = 1.0 / np.arange(1, max(height, width) // 2 + 2) ** law.decay
    return _unit(law, rings[::-1].cumsum()[::-1][np.maximum(rows[:, None], columns)])


def _unit(law: Law, shape: Array) -> Array:
    return shape / law.length(shape[None, :, :, None])[0, :, :, 0]
