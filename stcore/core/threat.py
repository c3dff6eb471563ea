"""Threat models: the ball of radius ε around an image, inside the range of pixels.

Each defines two operations: a step of steepest ascent in its norm, and the projection onto ball and range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from stcore.base import checks
from stcore.errors import UsageError
from stcore.protocols import Array, Ops, Tensor

_TINY = 1e-15  # if a norm underflows, the l2 step becomes too small rather than too large


Projection: TypeAlias = Callable[[Tensor], Tensor]
"""Points (B, …) → the points nearest to them that are allowed; in l2 clipped after the ball."""


class Threat(Protocol):
    """The norm, radius and pixel range that bound a perturbation."""

    @property
    def epsilon(self) -> float:
        """Radius of the ball, in units of pixels in [0, 1]."""

    def step(self, ops: Ops, x: Tensor, gradient: Tensor, size: float) -> Tensor:
        """Moves x (B, …) by `size` in the direction of steepest ascent; does not project."""

    def projection(self, ops: Ops, center: Tensor) -> Projection:
        """The projection of points (B, …) onto the ball around `center` (B, …), inside the pixel range."""


@dataclass(frozen=True)
class Linf:
    """‖x − center‖∞ ≤ ε: every pixel moves by at most ε. Signed-gradient steps (Eq. 1)."""

    epsilon: float
    bounds: tuple[float, float] = (0.0, 1.0)

    def step(self, ops: Ops, x: Tensor, gradient: Tensor, size: float) -> Tensor:
        return x + size * ops.sign(gradient)

    def projection(self, ops: Ops, center: Tensor) -> Projection:
        lowest = ops.clip(center - self.epsilon, *self.bounds)
        highest = ops.clip(center + self.epsilon, *self.bounds)
        return lambda x: ops.clip(x, lowest, highest)


@dataclass(frozen=True)
class L2:
    """‖x − center‖₂ ≤ ε, the norm of a whole image. Steps along the normalised gradient."""

    epsilon: float
    bounds: tuple[float, float] = (0.0, 1.0)

    def step(self, ops: Ops, x: Tensor, gradient: Tensor, size: float) -> Tensor:
        return x + gradient * ops.expand_dims_like(size / _norm(ops, gradient), gradient)

    def projection(self, ops: Ops, center: Tensor) -> Projection:
        def project(x: Tensor) -> Tensor:
            offset = x - center
            length = _norm(ops, offset)
            scale = ops.where(length > self.epsilon, self.epsilon / length, 1.0)
            return ops.clip(center + offset * ops.expand_dims_like(scale, offset), *self.bounds)

        return project


def _norm(ops: Ops, x: Tensor) -> Tensor:
    return ops.clip(ops.sqrt(ops.sum(x * x)), _TINY, math.inf)


ORDERS = {"linf": math.inf, "l2": 2.0, "l1": 1.0, "l0": 0.0}
"""The norms that an attack may have, by their order."""


def lengths(offsets: Array, norm: str) -> Array:
    """Norms of host offsets, in float64: (B, …) → (B,). norm: linf, l2, l1 or l0, the count of changed entries."""
    rows = np.asarray(offsets, np.float64).reshape(len(offsets), -1)
    measured: Array = np.linalg.norm(rows, ord=ORDERS[norm], axis=1)
    return measured


def radius_of(option: str, name: str, norm: str, text: str) -> float:
    """The radius in a name such as linf:8/255, in units of pixels in [0, 1]. Raises UsageError if it is none."""
    try:
        epsilon = checks.fraction(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error} as the radius in {name}") from None
    checks.number(f"{option}: the radius in {name}", epsilon, high=1.0 if norm == "linf" else math.inf)
    return epsilon


_SLACK = {"linf": 1e-6, "l2": 1e-6, "l1": 1e-5, "l0": 0.0}
"""Tolerance for float32 rounding outside the ball, relative to ε; in l1 the rounding of all pixels adds up."""


def reach(epsilon: float, norm: str) -> float:
    """The largest distance, as `lengths` measures it, at which a point in float32 counts as within ε."""
    return epsilon * (1 + _SLACK[norm]) + 1e-7


NORMS: dict[str, type[Linf] | type[L2]] = {"linf": Linf, "l2": L2}
