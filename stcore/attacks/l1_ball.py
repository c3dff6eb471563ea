"""The l1 ball inside the range of pixels, on the host."""

from __future__ import annotations

import numpy as np

from stcore.protocols import Array

_HALVINGS = 32  # leave a cut known to 2^−32 of the largest offset, beyond float32


def project(x: Array, offset: Array, epsilon: float, bounds: tuple[float, float]) -> Array:
    """The nearest offset to `offset` (B, d) with ‖·‖₁ ≤ ε and x + offset within the bounds, for x (B, d) there.

    Every entry moves towards zero by one cut, and no further from it than the bounds allow (Croce and Hein, 2021):
    d_i = sign(o_i) · min(max(|o_i| − λ, 0), room_i), λ the smallest with ‖d‖₁ ≤ ε, found by bisection.
    """
    x, offset = np.ascontiguousarray(x), np.ascontiguousarray(offset)  # sums round the same in any batch
    size = np.abs(offset)
    room = np.where(offset > 0, bounds[1] - x, x - bounds[0])

    def shrunk(cut: Array) -> Array:
        kept: Array = np.clip(size - cut, 0, room)
        return kept

    def outside(cut: Array) -> Array:
        total: Array = shrunk(cut).sum(axis=1, keepdims=True)
        return total > epsilon

    below = np.zeros_like(size[:, :1])
    above = np.where(outside(below), size.max(axis=1, keepdims=True), below)
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        short = outside(middle)
        below, above = np.where(short, middle, below), np.where(short, above, middle)
    nearest: Array = np.copysign(shrunk(above), offset)
    return nearest
