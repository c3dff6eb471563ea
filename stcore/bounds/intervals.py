"""Interval bounds of every value of a network over a ball, which hold for its floating-point forward.

What is bounded are the values that the framework computes, in float32, not those of real arithmetic. A sum of n
products, rounded in any order, with or without fused operations, is off by at most γ(n + r)·(|W||x| + |b|), γ(n) =
nu / (1 − nu), u the unit roundoff (Higham, 2002, section 3.1); a term that is 0 is added without rounding and does
not count in n. ReLU, maxima and copies are exact. Intervals are widened by this error, and the linear relaxation
(`stcore.bounds.relaxation`) subtracts it, at each layer. This assumes products and sums of the network's own
precision: neither TF32 nor bfloat16, and no convolution by Winograd's or Fourier's transform.

The bounds themselves are computed in float64. Their own rounding is far smaller, and bounded with it: no sum has
more than `Layers.longest()` terms, and no term passes more than a few operations at each node, so that `_coarse`
times |W||x| + |b| bounds it at every node.
"""

from __future__ import annotations

import numpy as np

from stcore.bounds.ball import Ball
from stcore.bounds.layers import Layers, Linear, Sum
from stcore.errors import UsageError
from stcore.protocols import Array


class Intervals:
    """Lower and upper bounds of each value of a network over a ball, by number as in `stcore.bounds.layers.Node`.

    low, high: (n,) for each value, once `propagate` has bounded it.
    error: (n,) for each value, what rounding changes it by at most.
    """

    def __init__(self, layers: Layers, ball: Ball) -> None:
        self.layers, self.ball = layers, ball
        kind, count = np.finfo(layers.dtype), len(layers.nodes) + 1
        self._unit, self._tiny, self._most = float(kind.eps) / 2, float(kind.tiny), float(kind.max) / 4
        self._coarse = 8 * (layers.longest() + 32 * count) * 2.0**-53
        self.low, self.high = [ball.low], [ball.high]
        self.error = [self._coarse * self.largest(0)]

    def largest(self, value: int) -> Array:
        """The largest absolute value of each entry."""
        size: Array = np.maximum(np.abs(self.low[value]), np.abs(self.high[value]))
        return size

    def propagate(self) -> None:
        """Bounds the next value by the bounds of those before it. Raises UsageError if it may overflow."""
        node = self.layers.nodes[len(self.low) - 1]
        lows, highs = [self.low[i] for i in node.inputs], [self.high[i] for i in node.inputs]
        sizes = [self.largest(i) for i in node.inputs]
        if not isinstance(node.layer, Linear | Sum):
            low, high = (node.layer.apply(*(each[:, None] for each in ends))[:, 0] for ends in (lows, highs))
            error = np.full(node.count, self._coarse * sizes[0].max())
        else:
            if isinstance(node.layer, Sum):
                size, terms = sizes[0] + sizes[1], np.full(node.count, 1.0)
                middle, radius = (sum(each) for each in zip(*map(_middle, lows, highs), strict=True))
            else:
                size = node.layer.absolute @ sizes[0] + node.layer.size
                terms = self._terms(node.layer, sizes[0])
                middle, radius = _middle(lows[0], highs[0])
                middle = node.layer.matrix @ middle + node.layer.offset
                radius = node.layer.absolute @ radius
            error = self._rounding(terms, size, node.name)
            low, high = middle - radius - error, middle + radius + error
        self.low.append(low)
        self.high.append(high)
        self.error.append(error)

    def _terms(self, layer: Linear, size: Array) -> Array:
        """The most roundings that a term of each sum passes."""
        if not layer.roundings:
            return np.zeros(len(layer.offset))
        terms: Array = layer.pattern @ (size > 0).astype(float) + layer.roundings
        return terms

    def _rounding(self, terms: Array, size: Array, name: str) -> Array:
        """The most that `terms` roundings in sums of this size, and ours, change."""
        rounded = terms * self._unit
        if not (size.max() < self._most and rounded.max() < 0.5):
            raise UsageError(
                f"model: expected values and sums that {self.layers.dtype} can hold; those of {name} may overflow"
            )
        error: Array = (rounded / (1 - rounded) + self._coarse) * size + 2 * terms * self._tiny
        return error


def _middle(low: Array, high: Array) -> tuple[Array, Array]:
    """Middle and radius of intervals; `_coarse` covers their rounding, and an interval of 0 alone stays so."""
    middle = low / 2 + high / 2
    return middle, np.maximum(high - middle, middle - low)
