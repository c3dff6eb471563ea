"""Projection onto the l1 ball and sparse steps, on native tensors.

Both need one threshold per example, which a sort would give; here bisection finds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from stcore.protocols import Ops, Tensor

_HALVINGS = 46  # leave 2^−46 of the interval: more than float64's rounding
_TINY = 1e-30  # keeps a division by zero finite
_ROUNDING = 0.1  # a whole count that was rounded up is still that count; one third more is not


def project(ops: Ops, x: Tensor, center: Tensor, radius: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Returns the point nearest to x (B, …) with ‖· − center‖₁ ≤ radius (B,) and within the bounds.

    center: (B, …) within the bounds. Every entry o_i of x − center shrinks by one cut λ and is limited by the
    bounds (Croce and Hein, 2021): d_i = sign(o_i) · min(max(|o_i| − λ, 0), room_i), with the smallest λ for which
    d is in the ball.
    """
    offset = x - center
    size, room = ops.abs(offset), ops.where(offset > 0.0, bounds[1] - center, center - bounds[0])

    def shrunk(cut: Tensor) -> Tensor:
        return ops.clip(size - ops.expand_dims_like(cut, size), size - size, room)

    def inside(cut: Tensor) -> Tensor:
        return ops.sum(shrunk(cut)) < radius

    zero = radius - radius
    low, high = bisect(ops, inside, ops.max(size))
    over, under = ops.sum(shrunk(low)) - radius, radius - ops.sum(shrunk(high))
    cut = low + (high - low) * over / (over + under + _TINY)  # the norm is linear between the two
    outside = ops.sum(shrunk(zero)) > radius
    cut, removed = ops.where(outside, cut, zero), ops.where(outside, high, zero)
    # Entries below the cut up to its rounding become exactly zero: attacks count the pixels that are changed.
    kept = ops.where(size < ops.expand_dims_like(removed, size), size - size, shrunk(cut))
    return ops.clip(center + ops.sign(offset) * kept, *bounds)


def signs_of_largest(ops: Ops, gradient: Tensor, count: Tensor) -> Tensor:
    """Returns the signs of the `count` largest entries in magnitude, and zero elsewhere: (B, …), (B,) → (B, …).

    At least one is kept; a fractional count is rounded up; of equal entries all are kept, where equal means within
    2^−45 of the largest.
    """
    return ops.sign(largest(ops, gradient, count))


def largest(ops: Ops, x: Tensor, count: Tensor) -> Tensor:
    """Returns x with zero for all but the `count` largest entries in magnitude, counted as above."""
    size = ops.abs(x)
    one, above = ops.ones_like(size), 2.0 * ops.max(size)
    wanted = ops.clip(count, 1.0, math.inf) - _ROUNDING

    def too_few(threshold: Tensor) -> Tensor:
        return ops.sum(ops.where(size < ops.expand_dims_like(threshold, size), one - one, one)) < wanted

    threshold, _ = bisect(ops, too_few, above)
    return ops.where(size < ops.expand_dims_like(threshold, size), one - one, x)


def bisect(ops: Ops, beyond: Callable[[Tensor], Tensor], above: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the ends (B,) of a small interval in [0, above] in which `beyond` changes from false to true."""

    def body(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        middle = 0.5 * (low + high)
        past = beyond(middle)
        return ops.where(past, low, middle), ops.where(past, middle, high)

    low, high = ops.fixed_point(_HALVINGS, body, (above - above, above))
    return low, high
