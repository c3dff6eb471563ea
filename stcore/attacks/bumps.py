"""Bumps, of which the Square attack makes its l2 and l1 perturbations: a hill beside a valley, of norm one.

Andriushchenko et al., 2020.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import ClassVar, Protocol

import numpy as np

from stcore.protocols import Array


class Law(Hashable, Protocol):
    """What a bump depends on: how steep it is, and the norm of each channel, (n, h, w, C) → (n, 1, 1, C)."""

    decay: ClassVar[int]
    """The k-th ring of a hill from its middle adds 1/k^decay to all within it."""

    def length(self, values: Array) -> Array: ...


def bumps(law: Law, height: int, width: int, chance: Array) -> Array:
    """(…, 1 + C) → (…, height, width, C): by chance upright or lying, and a sign for every channel."""
    shapes = _shapes(law, height, width)[(chance[..., 0] < 0.5).astype(np.intp)]
    signs: Array = np.where(chance[..., 1:] < 0.5, -1, 1)[..., None, None, :]
    return shapes[..., None] * signs


@cache
def _shapes(law: Law, height: int, width: int) -> Array:
    """(2, height, width): a hill and a valley, of norm one together: one above the other, and left and right."""

    def pair(height: int, width: int) -> Array:
        halves = (_hill(law, height // 2, width), -_hill(law, height - height // 2, width))
        return _unit(law, np.concatenate(halves))

    return np.stack((pair(height, width), pair(width, height).T))


def _hill(law: Law, height: int, width: int) -> Array:
    """Square rings around the middle pixel, the higher the nearer; of norm one."""
    rows, columns = (np.abs(np.arange(size) - size // 2) for size in (height, width))
    rings = 1.0 / np.arange(1, max(height, width) // 2 + 2) ** law.decay
    return _unit(law, rings[::-1].cumsum()[::-1][np.maximum(rows[:, None], columns)])


def _unit(law: Law, shape: Array) -> Array:
    return shape / law.length(shape[None, :, :, None])[0, :, :, 0]
