"""The set of points that a proof covers: a ball around an image, within the range of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stcore.bounds.columns import Columns, dense, scaled
from stcore.core.threat import reach
from stcore.protocols import Array


@dataclass(frozen=True, eq=False)
class Ball:
    """All points within [0, 1] at most `radius` from an image in a norm.

    center: pixels (n,), float64.   norm: linf, l2 or l1.
    """

    center: Array
    radius: float
    norm: str

    @classmethod
    def around(cls, image: Array, epsilon: float, norm: str) -> Ball:
        """The ball that holds every point which counts as within ε of the image, rounding included."""
        return cls(np.asarray(image, np.float64).reshape(-1), reach(epsilon, norm) * (1 + 2.0**-30), norm)

    @property
    def low(self) -> Array:
        """The lowest value of each pixel."""
        return np.maximum(np.nextafter(self.center - self.radius, -np.inf), 0.0)

    @property
    def high(self) -> Array:
        """The highest value of each pixel."""
        return np.minimum(np.nextafter(self.center + self.radius, np.inf), 1.0)

    def minimum(self, a: Columns) -> Array:
        """A lower bound of a · x over the ball, (R,), for coefficients (n, R), up to the rounding of a sum.

        In l∞ and l1 the minimum; in l2 the larger of the minima over the ball and over the box around it.
        """
        box: Array = self.low @ scaled(a, 1, 0) + self.high @ scaled(a, 0, 1)
        if self.norm == "linf":
            return box
        middle: Array = self.center @ a
        if self.norm == "l2":
            falls = self.radius * np.sqrt(np.asarray((a * a).sum(axis=0)))
            best: Array = np.maximum(box, middle - falls)
            return best
        least: Array = middle - (np.abs(dense(a)) * self._moves(dense(a))).sum(axis=0)
        return least

    def minimizer(self, a: Array) -> Array:
        """Where a · x is smallest, (n, R); in l2 over the ball without the range of pixels."""
        if self.norm == "linf":
            return np.where(a > 0, self.low[:, None], self.high[:, None])
        if self.norm == "l2":
            move = self.radius * a / np.maximum(np.sqrt((a * a).sum(axis=0)), np.finfo(float).tiny)
        else:
            move = np.sign(a) * self._moves(a)
        point: Array = self.center[:, None] - move
        return point

    def _moves(self, a: Array) -> Array:
        """The moves tᵢ ≥ 0, (n, R), with the largest Σ|aᵢ|tᵢ, where Σtᵢ ≤ radius: the steepest pixels first, each
        to the end of its range."""
        room = np.where(a > 0, (self.center - self.low)[:, None], (self.high - self.center)[:, None])
        order = np.argsort(-np.abs(a), axis=0, kind="stable")
        sorted_room = np.take_along_axis(room, order, axis=0)
        before = np.cumsum(sorted_room, axis=0) - sorted_room
        moves = np.zeros_like(room)
        np.put_along_axis(moves, order, np.clip(self.radius - before, 0.0, sorted_room), axis=0)
        return moves
