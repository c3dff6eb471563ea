"""Linearised decision boundaries, and projections onto them within the range of pixels.

A coordinate moves only towards the plane, and at most to its end of the range: by its *room*. One equation in one
number per example remains, which sets how far the coordinates move. If all rooms together do not reach the plane,
the result is the corner of the range (the projections of FAB; Croce and Hein, 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

from stcore.core.search import Forward, value_and_input_gradient
from stcore.protocols import Ops, Tensor

DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}
"""The dual of each norm: gradients are measured in it."""

_TINY, _HUGE = 1e-36, 1e36
_NEWTON_STEPS = 20  # the most needed for 3072 weights over 12 decades at 0.9999 of all room; 4 are typical
_HALVINGS = 50  # of [0, max |w|]


class Boundary(NamedTuple):
    """The hyperplane {q : f + ⟨w, q − p⟩ = 0}, linearised at the points p (B, …)."""

    f: Tensor
    """(B,): another class's logit minus the label's, at p."""
    w: Tensor
    """(B, …): its gradient at p."""


def length(ops: Ops, norm: str, x: Tensor) -> Tensor:
    """The l∞, l2, l1 or l0 norm of each example: (B, …) → (B,). l0 counts the entries that are not zero."""
    if norm == "l2":
        return ops.sqrt(ops.sum(x * x))
    if norm == "l0":
        return ops.sum(ops.abs(ops.sign(x)))
    return ops.max(ops.abs(x)) if norm == "linf" else ops.sum(ops.abs(x))


def boundary(ops: Ops, at: Forward, y: Tensor, other: Callable[[Tensor], Tensor]) -> Boundary:
    """Linearises the boundary between the labels y (B,) and another class; one backward pass.

    other: selects that class's logit, (B, C) → (B,).
    """
    return Boundary(*value_and_input_gradient(ops, at, lambda z: other(z) - ops.of_label(z, y)))


def at_level(ops: Ops, others: Tensor, level: Tensor) -> Callable[[Tensor], Tensor]:
    """Selects from logits, (B, C) → (B,), the class whose entry of `others` (B, C) is its example's level (B,)."""
    minus_infinity = ops.ones_like(others) * -math.inf
    less, more = others < ops.expand_dims_like(level, others), others > ops.expand_dims_like(level, others)
    return lambda z: ops.max(ops.where(less, minus_infinity, ops.where(more, minus_infinity, z)))


def nearest_boundary(ops: Ops, at: Forward, y: Tensor, norm: str, classes: int) -> Boundary:
    """Returns the boundary with the smallest |f| / ‖w‖ among the likeliest `classes`, the label included.

    One backward pass for each class but the label.
    """
    minus_infinity = ops.ones_like(at.logits) * -math.inf
    others = ops.where(ops.one_hot(y, at.logits), minus_infinity, at.logits)

    def with_class_at(level: Tensor) -> Boundary:
        return boundary(ops, at, y, at_level(ops, others, level))

    def nearer(first: Boundary, second: Boundary) -> Boundary:
        distance, other = (ops.abs(b.f) / (length(ops, DUAL[norm], b.w) + _TINY) for b in (first, second))
        closer = other < distance
        return Boundary(
            ops.where(closer, second.f, first.f),
            ops.where(ops.expand_dims_like(closer, first.w), second.w, first.w),
        )

    # With all C classes, the label's −∞ comes last.
    return reduce(nearer, map(with_class_at, ops.top_k(others, classes)[:-1]))


def displacement(ops: Ops, norm: str, t: Tensor, w: Tensor, gap: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Returns the smallest d (B, …) in this norm with ⟨w, t + d⟩ = b and t + d within the bounds, or the corner.

    t: points (B, …) in the range.   w: normals (B, …).   gap: ⟨w, t⟩ − b, (B,).
    """
    down, up = bounds[0] - t, bounds[1] - t
    scale = ops.clip(ops.max(ops.abs(w)), _TINY, math.inf)
    toward = w * ops.expand_dims_like(-ops.sign(gap) / scale, w)  # the largest is 1: squares do not underflow
    side, slope, gap = ops.sign(toward), ops.abs(toward), ops.abs(gap) / scale
    room = side * (ops.clip(side * _HUGE, *bounds) - t)  # to the end of the range on that side
    if norm == "l1":
        return side * room * _shares(ops, slope, room, gap)
    if norm == "linf":
        direction, arrival, rate = side, room, slope
    else:
        direction, arrival, rate = toward, room / ops.clip(slope, _TINY, math.inf), slope * slope
    reach = _reach(ops, arrival, rate, slope * room, gap)
    return ops.clip(direction * ops.expand_dims_like(reach, w), down, up)


def _reach(ops: Ops, arrival: Tensor, rate: Tensor, whole: Tensor, gap: Tensor) -> Tensor:
    """Solves Σ (whole if arrival ≤ λ else λ · rate) = gap for λ (B,).

    The coordinates (B, …) move until λ is their arrival, when they have used up their room; each closes `rate` of
    the gap per λ, and `whole` in all. Newton's method from 0: the sum is concave and piecewise linear in λ, so the
    steps approach the root from below and reach it. If the sum never reaches the gap, λ is huge.
    """

    zero = gap - gap
    huge = zero + _HUGE

    def newton_step(scale: Tensor) -> tuple[Tensor]:
        moving = ops.flag(arrival > ops.expand_dims_like(scale, arrival), arrival)
        arrived, speeds = ops.sum((1.0 - moving) * whole), ops.sum(moving * rate)
        root = (gap - arrived) / ops.clip(speeds, _TINY, math.inf)
        return (ops.clip(root, scale, huge),)

    (scale,) = ops.fixed_point(_NEWTON_STEPS, newton_step, (zero,))
    return scale


def _shares(ops: Ops, slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Returns each coordinate's share (B, …) of its room: the steepest move fully until the gap is closed.

    Bisection on the slope of the last coordinates needed. Those of that slope all move the same share.
    """
    whole, one = slope * room, ops.ones_like(gap)

    def halve(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        middle = 0.5 * (low + high)
        enough = ops.sum(ops.where(slope > ops.expand_dims_like(middle, slope), whole, 0.0)) > gap
        return ops.where(enough, middle, low), ops.where(enough, high, middle)

    low, high = ops.fixed_point(_HALVINGS, halve, (one - one, one))
    full, more = (
        ops.where(slope > ops.expand_dims_like(s, slope), ops.ones_like(slope), 0.0) for s in (high, low)
    )
    left = gap - ops.sum(full * whole)
    share = left / ops.clip(ops.sum((more - full) * whole), _TINY, math.inf)
    return full + (more - full) * ops.expand_dims_like(ops.clip(share, 0.0, 1.0), slope)
