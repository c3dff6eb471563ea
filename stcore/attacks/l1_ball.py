"""Projection onto the l1 ball within the range of pixels, on host arrays."""

from __future__ import annotations

import numpy as np

from stcore.protocols import Array

_HALVINGS = 32  # determine the cut to 2^−32 of the largest offset, finer than float32


def project(x: Array, offset: Array, epsilon: float, bounds: tuple[float, float]) -> Array:
    """Returns the offset nearest to `offset` (B, d) with norm ‖·‖₁ ≤ ε and x + offset within the bounds.

    x: (B, d) within the bounds. Every entry shrinks by one cut λ and is limited by the bounds (Croce and Hein,
    2021): d_i = sign(o_i) · min(max(|o_i| − λ, 0), room_i), λ the smallest with ‖d‖₁ ≤ ε, found by bisection.
    """
    x, offset = np.ascontiguousarray(x), np.ascontiguousarray(offset)  # so that sums round the same in any batch
    size = np.abs(offset)
    room = np.where(offset > 0, bounds[1] - x, x - bounds[0])

    kept: Array = np.empty_like(size)  # one place for all cuts: it is filled 34 times

    def shrunk(cut: Array) -> Array:
        np.subtract(size, cut, out=kept)
        np.maximum(kept, 0, out=kept)
        np.minimum(kept, room, out=kept)
        return kept

    def outside(cut: Array) -> Array:
        beyond: Array = shrunk(cut).sum(axis=1, keepdims=True) > epsilon
        return beyond

    below = np.zeros_like(size[:, :1])
    above = np.where(outside(below), size.max(axis=1, keepdims=True), below)
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        too_small = outside(middle)
        below, above = np.where(too_small, middle, below), np.where(too_small, above, middle)
    nearest: Array = np.copysign(shrunk(above), offset)
    return nearest
