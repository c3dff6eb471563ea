"""The l1 ball inside the range of pixels, on the tensors of a framework: projection, and steps along few pixels.

Both ask for one number per example that a sort would give, and find it by bisection.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from stcore.protocols import Ops, Tensor

_HALVINGS = 46  # leave 2^−46 of the interval: little, but more than float64's rounding
_TINY = 1e-30  # beside what may be zero and is divided by
_ROUNDING = 0.1  # a whole count that was rounded up is still that count; one third more is not


def project(ops: Ops, x: Tensor, center: Tensor, radius: Tensor, bounds: tuple[float, float]) -> Tensor:
    """The nearest point to x (B, …) with ‖· − center‖₁ ≤ radius (B,) and within the bounds, where `center` lies.

    Every entry o_i of x − center moves towards zero by one cut λ, and stays as near as the bounds ask (Croce and
    Hein, 2021): d_i = sign(o_i) · min(max(|o_i| − λ, 0), room_i), with the smallest λ that brings d into the ball.
    """
    offset = x - center
    size, room = ops.abs(offset), ops.where(offset > 0.0, bounds[1] - center, center - bounds[0])

    def shrunk(cut: Tensor) -> Tensor:
        return ops.clip(size - ops.expand_dims_like(cut, size), size - size, room)

    def inside(cut: Tensor) -> Tensor:
        return ops.sum(shrunk(cut)) < radius

    none = radius - radius
    low, high = bisect(ops, inside, ops.max(size))
    over, under = ops.sum(shrunk(low)) - radius, radius - ops.sum(shrunk(high))
    cut = low + (high - low) * over / (over + under + _TINY)  # the norm is linear between the two
    outside = ops.sum(shrunk(none)) > radius
    cut, gone = ops.where(outside, cut, none), ops.where(outside, high, none)
    # What the cut takes away but for its rounding is gone: attacks count the pixels that are changed.
    left = ops.where(size < ops.expand_dims_like(gone, size), size - size, shrunk(cut))
    return ops.clip(center + ops.sign(offset) * left, *bounds)


def signs_of_largest(ops: Ops, gradient: Tensor, count: Tensor) -> Tensor:
    """The signs of the `count` entries that are largest in magnitude, zero elsewhere: (B, …), (B,) → (B, …).

    At least one is kept, of a fraction one more, and of equals all; equal is what differs by 2^−45 of the largest.
    """
    size = ops.abs(gradient)
    one, above = ops.ones_like(size), 2.0 * ops.max(size)
    wanted = ops.clip(count, 1.0, math.inf) - _ROUNDING

    def too_few(threshold: Tensor) -> Tensor:
        return ops.sum(ops.where(size < ops.expand_dims_like(threshold, size), one - one, one)) < wanted

    threshold, _ = bisect(ops, too_few, above)
    return ops.where(size < ops.expand_dims_like(threshold, size), one - one, ops.sign(gradient))


def bisect(ops: Ops, beyond: Callable[[Tensor], Tensor], above: Tensor) -> tuple[Tensor, Tensor]:
    """The two ends (B,) of a small interval in [0, above] where `beyond`, false below, becomes true."""

    def body(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        middle = 0.5 * (low + high)
        past = beyond(middle)
        return ops.where(past, low, middle), ops.where(past, middle, high)

    low, high = ops.fori_loop(_HALVINGS, body, (above - above, above))
    return low, high
