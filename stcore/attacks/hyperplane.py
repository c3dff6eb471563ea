"""Decision boundaries taken for hyperplanes, and the shortest way onto one within the range of pixels.

A coordinate only ever moves to the side where the plane is, and at most to its end of the range: by its *room*.
What is left is one equation in one number per example, which says how far the others go. Where all rooms together
do not reach the plane, the example ends in the corner of the range (the projections of FAB; Croce and Hein, 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

from stcore.core.losses import of_label
from stcore.core.search import Forward, value_and_input_gradient
from stcore.protocols import Ops, Tensor

DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}
"""The norm in which gradients are measured where distances are in this one."""

_TINY, _HUGE = 1e-36, 1e36
_NEWTON_STEPS = 20  # the most that 3072 weights over 12 decades took to go up to 0.9999 of all room; 4 are typical
_HALVINGS = 50  # of [0, max |w|]


class Boundary(NamedTuple):
    """{q : f + ⟨w, q − p⟩ = 0}, where p (B, …) is the point at which the network was asked."""

    f: Tensor
    """(B,): another class's logit less the label's."""
    w: Tensor
    """(B, …): its gradient at p."""


def length(ops: Ops, norm: str, x: Tensor) -> Tensor:
    """The l∞, l2 or l1 norm of each example: (B, …) → (B,)."""
    if norm == "l2":
        return ops.sqrt(ops.sum(x * x))
    return ops.max(ops.abs(x)) if norm == "linf" else ops.sum(ops.abs(x))


def boundary(ops: Ops, at: Forward, y: Tensor, other: Callable[[Tensor], Tensor]) -> Boundary:
    """Between the labels (B,) and the class whose logit `other` reads, (B, C) → (B,); one way back."""
    return Boundary(*value_and_input_gradient(ops, at, lambda z: other(z) - of_label(ops, z, y)))


def nearest_boundary(ops: Ops, here: Forward, y: Tensor, norm: str, classes: int) -> Boundary:
    """The one at the smallest |f| / ‖w‖ among the likeliest `classes`, the label counted; a way back each."""
    never = ops.ones_like(here.logits) * -math.inf
    others = ops.where(ops.one_hot(y, here.logits), never, here.logits)

    def at(level: Tensor) -> Boundary:
        less, more = others < ops.expand_dims_like(level, others), others > ops.expand_dims_like(level, others)
        return boundary(ops, here, y, lambda z: ops.max(ops.where(less, never, ops.where(more, never, z))))

    def nearer(one: Boundary, two: Boundary) -> Boundary:
        away, apart = (ops.abs(b.f) / (length(ops, DUAL[norm], b.w) + _TINY) for b in (one, two))
        closer = apart < away
        return Boundary(
            ops.where(closer, two.f, one.f), ops.where(ops.expand_dims_like(closer, one.w), two.w, one.w)
        )

    return reduce(nearer, map(at, ops.top_k(others, classes)[:-1]))  # of C classes the label comes last


def displacement(ops: Ops, norm: str, t: Tensor, w: Tensor, gap: Tensor, bounds: tuple[float, float]) -> Tensor:
    """The smallest d, in this norm, with ⟨w, t + d⟩ = b and t + d in the range of pixels; or the corner.

    t: points (B, …) in the range.   w: normals (B, …).   gap: ⟨w, t⟩ − b, (B,).
    """
    down, up = bounds[0] - t, bounds[1] - t
    scale = ops.clip(ops.max(ops.abs(w)), _TINY, math.inf)
    toward = w * ops.expand_dims_like(-ops.sign(gap) / scale, w)  # the largest is 1: squares do not underflow
    slope, room, gap = ops.abs(toward), ops.where(toward > 0.0, up, -down), ops.abs(gap) / scale
    if norm == "l1":
        return ops.sign(toward) * room * _shares(ops, slope, room, gap)
    direction = ops.sign(toward) if norm == "linf" else toward
    return ops.clip(
        direction * ops.expand_dims_like(_reach(ops, ops.abs(direction), slope, room, gap), w), down, up
    )


def _reach(ops: Ops, speed: Tensor, slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """The λ (B,) at which Σ slope · min(λ · speed, room) is the gap.

    By Newton's method from 0: the sum is concave and piecewise linear in λ, so each step falls short of the root
    until one lands on it. Where all have arrived and the gap is still open, λ is huge.
    """
    arrival = room / ops.clip(speed, _TINY, math.inf)
    rate, whole, nothing = slope * speed, slope * room, slope - slope

    def body(now: Tensor) -> tuple[Tensor]:
        moving = arrival > ops.expand_dims_like(now, arrival)
        arrived, speeds = ops.sum(ops.where(moving, nothing, whole)), ops.sum(ops.where(moving, rate, 0.0))
        further = (gap - arrived) / ops.clip(speeds, _TINY, math.inf)
        return (ops.clip(ops.where(further > now, further, now), 0.0, _HUGE),)

    (reach,) = ops.fori_loop(_NEWTON_STEPS, body, (gap - gap,))
    return reach


def _shares(ops: Ops, slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Which share (B, …) of its room each goes: the steepest first, all of it, until the gap is closed.

    By bisection on the slope of the last that are needed. Those as steep as that all go the same share.
    """
    whole, one = slope * room, ops.ones_like(gap)

    def body(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        middle = 0.5 * (low + high)
        enough = ops.sum(ops.where(slope > ops.expand_dims_like(middle, slope), whole, 0.0)) > gap
        return ops.where(enough, middle, low), ops.where(enough, high, middle)

    low, high = ops.fori_loop(_HALVINGS, body, (one - one, one))
    full, more = (
        ops.where(slope > ops.expand_dims_like(s, slope), ops.ones_like(slope), 0.0) for s in (high, low)
    )
    left = gap - ops.sum(full * whole)
    share = left / ops.clip(ops.sum((more - full) * whole), _TINY, math.inf)
    return full + (more - full) * ops.expand_dims_like(ops.clip(share, 0.0, 1.0), slope)
