"""Linear relaxation of a network, from a value back to the pixels: CROWN, and better slopes for it.

A linear function a · v of a value is bounded below by linear functions of the values before it, node by node,
until one stands over the pixels, whose minimum over the ball is known. At a ReLU with bounds l < 0 < u a negative
coefficient takes the line through (l, 0) and (u, u), from above, and a positive one the line αz, from below, for
any α in [0, 1]; CROWN's is 1 if u > −l, and 0 otherwise (Zhang et al., 2018, section 3.3). Better slopes are found
by gradient ascent on the bound (α-CROWN; Xu et al., 2021): it is the minimum of the relaxed network over the ball,
so its derivative with respect to a slope is the coefficient times the value that z takes at the minimiser.

Rounding: with coefficients a at a value, |a| · error is subtracted, for the framework's rounding of this value and
for ours of a and of the sums; see `stcore.bounds.intervals`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from stcore.bounds.columns import Columns, dense, product, scaled
from stcore.bounds.intervals import Intervals
from stcore.bounds.layers import Linear, MaxPool, Node, ReLU, Sum
from stcore.protocols import Array

Slopes = Mapping[int, Array]
"""Lower slopes α of ReLUs, by the number of their result: (n,), or (n, R), an own one for each column."""


@dataclass
class Trace:
    """Of one backward pass: the coefficients at the results of ReLUs and maxima, by number, and those of the
    pixels."""

    at: dict[int, Array] = field(default_factory=dict)


def lower(
    intervals: Intervals, value: int, a: Columns, slopes: Slopes | None = None, trace: Trace | None = None
) -> Array:
    """Lower bounds (R,) of a · v over the ball, for the columns of a, (n, R).

    slopes: CROWN's by default.   trace: receives what `gradients` needs.
    """
    pending, constant = {value: a}, np.zeros(a.shape[1])
    for at in range(value, 0, -1):
        a = pending.pop(at, None)
        if a is None:
            continue
        node = intervals.layers.nodes[at - 1]
        constant -= intervals.error[at] @ abs(a)
        if trace is not None:
            trace.at[at] = a
        parts, shift = _through(intervals, node, a, (slopes or {}).get(at))
        constant += shift
        for source, part in zip(node.inputs, parts, strict=True):
            pending[source] = pending[source] + part if source in pending else part
    a = pending[0]
    if trace is not None:
        trace.at[0] = dense(a)
    bound: Array = constant - intervals.error[0] @ abs(a) + intervals.ball.minimum(a)
    return bound


def _through(
    intervals: Intervals, node: Node, a: Columns, alpha: Array | None
) -> tuple[tuple[Columns, ...], Array | float]:
    """Coefficients of the node's inputs, and the constant, from the coefficients of its result."""
    low, high = intervals.low[node.inputs[0]], intervals.high[node.inputs[0]]
    match node.layer:
        case Linear() as layer:
            return (product(layer.transposed, a),), layer.offset @ a
        case Sum():
            return (a, a), 0.0
        case ReLU():
            slope, shift = above(low, high)
            return (scaled(a, below(low, high) if alpha is None else alpha, slope),), shift @ scaled(a, 0, 1)
        case MaxPool() as pool:
            chosen, certain, largest = maximum(pool, low, high)
            part = _copies(chosen, len(low)) @ scaled(a, 1, certain.astype(float))
            return (part,), np.where(certain, 0.0, largest) @ scaled(a, 0, 1)


def above(low: Array, high: Array) -> tuple[Array, Array]:
    """Slope and shift of the line above ReLU on [low, high]: through both ends, rounded up."""
    unstable = (low < 0) & (high > 0)
    slope = np.where(unstable, high / np.where(unstable, high - low, 1.0), (low >= 0).astype(float))
    ends = np.maximum(
        -slope * low, high - slope * high
    )  # ReLU is convex: a line above it at both ends is above it
    rounding = 2.0**-50 * np.maximum(np.abs(low), np.abs(high))
    return slope, np.where(unstable, ends + rounding, 0.0)


def below(low: Array, high: Array) -> Array:
    """CROWN's slope of the line through 0 below ReLU on [low, high]."""
    slope: Array = ((low >= 0) | (high > -low)).astype(float)
    return slope


def maximum(pool: MaxPool, low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Of each window: the entry with the largest lower bound, whether it is the maximum for certain, and the
    largest upper bound. A maximum is at least that entry, and at most the bound."""
    lows, highs = (np.append(ends, -np.inf)[pool.entries] for ends in (low, high))
    best = lows.argmax(axis=1)[:, None]
    chosen = np.take_along_axis(pool.entries, best, axis=1)[:, 0]
    others = highs.copy()
    np.put_along_axis(others, best, -np.inf, axis=1)
    return chosen, low[chosen] >= others.max(axis=1), highs.max(axis=1)


def _copies(chosen: Array, count: int) -> Columns:
    """The matrix (count, m) that adds the i-th of m coefficients to entry chosen[i]."""
    from scipy.sparse import csr_array

    places = (chosen, np.arange(len(chosen)))
    return csr_array((np.ones(len(chosen)), places), shape=(count, len(chosen)))


def gradients(intervals: Intervals, slopes: Slopes, trace: Trace) -> dict[int, Array]:
    """The derivatives of the bounds with respect to the slopes, (n, R) each, from the trace of `lower`.

    The relaxed network runs forward from the minimising pixels, each column with its own lines.
    """
    values, found = [intervals.ball.minimizer(trace.at[0])], {}
    for at, node in enumerate(intervals.layers.nodes[: max(slopes, default=0)], start=1):
        z, source, a = values[node.inputs[0]], node.inputs[0], trace.at.get(at)
        low, high = intervals.low[source], intervals.high[source]
        if a is None or isinstance(node.layer, Linear | Sum):
            values.append(node.layer.apply(*(values[i] for i in node.inputs)))
        elif isinstance(node.layer, ReLU):
            slope, shift = above(low, high)
            values.append(np.where(a > 0, slopes[at] * z, slope[:, None] * z + shift[:, None]))
            found[at] = np.where((a > 0) & ((low < 0) & (high > 0))[:, None], a * z, 0.0)
        else:
            chosen, certain, largest = maximum(node.layer, low, high)
            values.append(np.where((a > 0) | certain[:, None], z[chosen], largest[:, None]))
    return found
