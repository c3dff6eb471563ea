"""Proof that no point of a ball changes a network's class: intervals, CROWN, better slopes, as far as needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stcore.bounds import relaxation
from stcore.bounds.ball import Ball
from stcore.bounds.columns import selected
from stcore.bounds.intervals import Intervals
from stcore.bounds.layers import Layers, MaxPool, ReLU
from stcore.bounds.relaxation import Trace
from stcore.errors import UsageError
from stcore.protocols import Array

INTERVALS, CROWN, ALPHA = "intervals", "crown", "alpha-crown"
METHODS = (INTERVALS, CROWN, ALPHA)
"""From the cheapest to the tightest; a method includes those before it."""
STEPS, RATE = 20, 0.1
"""Of the ascent of slopes, which are in [0, 1]; the rate falls to a tenth."""
ENTRIES = 2**23
"""Of coefficients at one time, 64 MB: the columns beyond are bounded in another part."""


@dataclass(frozen=True)
class Proof:
    """Lower bound of the label's logit minus the largest other one over a ball; above 0 it is a proof.

    method: the one that found it.
    """

    margin: float
    method: str

    @property
    def holds(self) -> bool:
        return self.margin > 0


def prove(layers: Layers, image: Array, label: int, epsilon: float, norm: str, method: str = ALPHA) -> Proof:
    """Bounds the margin of one image from below by the methods up to this one, until one proves it.

    image: pixels as `Layers.pixels` orders them, in [0, 1].   norm: linf, l2 or l1.   method: of METHODS. All take
    the linear relaxation of the logits; with `intervals` the values inside have interval bounds alone.
    """
    ball, last = Ball.around(image, epsilon, norm), len(layers.nodes)
    a = margins(layers.classes, label)
    best = Proof(_least(relaxation.lower(bounded(layers, ball), last, a)), INTERVALS)
    if best.holds or method == INTERVALS:
        return best
    intervals = bounded(layers, ball, tight=True)
    bounds = relaxation.lower(intervals, last, a)
    best = max(best, Proof(_least(bounds), CROWN), key=lambda proof: proof.margin)
    if best.holds or method == CROWN:
        return best
    return max(best, Proof(_least(ascended(intervals, last, a, bounds)), ALPHA), key=lambda proof: proof.margin)


def check(layers: Layers, image: Array, logits: Array) -> None:
    """Raises UsageError unless a network's logits (C,) of an image are those of the layers, up to rounding."""
    intervals = bounded(layers, Ball(image.reshape(-1), 0.0, "linf"))
    if not ((intervals.low[-1] <= logits) & (logits <= intervals.high[-1])).all():
        off = np.abs(logits - layers.logits(image[None])[0]).max()
        raise UsageError(
            f"model: expected logits in {layers.dtype}, equal to those of its layers up to rounding; received "
            f"logits that are off by {off:.2g}, for which nothing can be proved. Switch TF32 off, and other fast "
            "arithmetic"
        )


def margins(classes: int, label: int) -> Array:
    """Coefficients (C, C − 1) of the label's logit minus each other one."""
    coefficients: Array = np.delete(np.eye(classes)[label][:, None] - np.eye(classes), label, axis=1)
    return coefficients


def bounded(layers: Layers, ball: Ball, *, tight: bool = False) -> Intervals:
    """Intervals of all values; tight: those that a ReLU or a maximum takes are bounded by CROWN too."""
    intervals = Intervals(layers, ball)
    takers = {node.inputs[0]: node.layer for node in layers.nodes if isinstance(node.layer, ReLU | MaxPool)}
    for value, node in enumerate(layers.nodes, start=1):
        intervals.propagate()
        if tight and value in takers and not isinstance(node.layer, ReLU):
            low, high = intervals.low[value], intervals.high[value]
            undecided = (low < 0) & (high > 0) | isinstance(takers[value], MaxPool)
            _tighten(intervals, value, np.flatnonzero(undecided))
    return intervals


def _tighten(intervals: Intervals, value: int, entries: Array) -> None:
    """Bounds these entries of a value by CROWN."""
    low, high = intervals.low[value], intervals.high[value]
    part = max(1, ENTRIES // intervals.layers.longest() // 2)
    for begin in range(0, len(entries), part):
        chosen = entries[begin : begin + part]
        signs = np.repeat([1.0, -1.0], len(chosen))
        a = selected(len(low), np.concatenate([chosen, chosen]), signs)
        lowest, highest = relaxation.lower(intervals, value, a).reshape(2, -1)
        low[chosen], high[chosen] = np.maximum(low[chosen], lowest), np.minimum(high[chosen], -highest)


def ascended(intervals: Intervals, value: int, a: Array, bounds: Array) -> Array:
    """Lower bounds as `relaxation.lower` finds them with slopes that ascend from CROWN's, by Adam; at least
    `bounds`."""
    slopes: dict[int, Array] = {}
    for number, node in enumerate(intervals.layers.nodes[:value], start=1):
        if isinstance(node.layer, ReLU):
            source = node.inputs[0]
            start = relaxation.below(intervals.low[source], intervals.high[source])
            slopes[number] = np.repeat(start[:, None], a.shape[1], axis=1)
    first = {number: np.zeros_like(slope) for number, slope in slopes.items()}
    second = {number: np.zeros_like(slope) for number, slope in slopes.items()}
    for step in range(1, STEPS + 1):
        trace = Trace()
        bounds = np.maximum(bounds, relaxation.lower(intervals, value, a, slopes, trace))
        if bounds.min() > 0:
            break
        rate = RATE * 0.1 ** (step / STEPS)
        for number, gradient in relaxation.gradients(intervals, slopes, trace).items():
            first[number] = 0.9 * first[number] + 0.1 * gradient
            second[number] = 0.99 * second[number] + 0.01 * gradient**2
            mean, square = first[number] / (1 - 0.9**step), second[number] / (1 - 0.99**step)
            slopes[number] = np.clip(slopes[number] + rate * mean / (np.sqrt(square) + 1e-12), 0, 1)
    return bounds


def _least(bounds: Array) -> float:
    return float(bounds.min())
