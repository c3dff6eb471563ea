"""Directions of many images at once, on the host in float64."""

from __future__ import annotations

import numpy as np

from stcore.protocols import Array


def angle(one: Array, other: Array) -> Array:
    """The angle between rows (B, D), in degrees, (B,); NaN where one of the two is zero.

    By Kahan's formula, 2·atan2(‖a − b‖, ‖a + b‖) of unit vectors: the arc cosine loses half of the digits near 0°
    and 180°.
    """
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is promised
        a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (one, other))
    half: Array = np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    return np.asarray(np.degrees(2 * half))


def orthogonal(drawn: Array, u: Array) -> Array:
    """What of each row (B, …) of `drawn` is orthogonal to that of u, made as long; zero where u is zero."""
    rows, along = drawn.reshape(len(drawn), -1), u.reshape(len(u), -1)
    length = np.linalg.norm(along, axis=1, keepdims=True)
    unit = along / np.where(length > 0, length, 1.0)
    for _ in range(2):  # the second takes away what rounding left by the first
        rows = rows - (rows * unit).sum(axis=1, keepdims=True) * unit
    made: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True) * length
    return made.reshape(u.shape)
