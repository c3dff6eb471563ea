"""FMN (Pintor et al., 2021): gradient steps projected onto a ball whose radius adapts to the boundary.

    δ ← Π_ε(δ + α g/‖g‖₂),

g the gradient of the margin of the likeliest other class over the label. At a misclassified point ε shrinks by
1 − γ, to the norm of the nearest found at most; at any other it grows by 1 + γ, before a misclassified point is
found from the estimated distance of the boundary, ‖δ‖ + |margin| / ‖g‖ in the dual norm, if that is larger. In l0,
where ε is a whole number, it starts at 1 and changes by at least one. The point is clipped to the range of pixels
after the projection, as published.

The published ε is the estimate alone until a point is found. It comes to rest before a boundary: on one that is
linear, and on any where pixels at the ends of their range use up a part of each step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from stcore.attacks.hyperplane import DUAL, length
from stcore.attacks.l1_projection import largest, project
from stcore.attacks.minimum_norm import TINY, Evaluated, MinimumNorm, cosine, farthest, normalised, smaller
from stcore.attacks.stepped import State
from stcore.base import checks
from stcore.core.losses import margin
from stcore.protocols import Array, Ops, Tensor

_EVERYWHERE = (-math.inf, math.inf)


@dataclass(frozen=True)
class FMN(MinimumNorm):
    """Fast minimum norm, in l∞, l2, l1 or l0. See `MinimumNorm` for the fields not named here.

    step_size, last_step_size: α, annealed from the first to the second.
    gamma, last_gamma: γ, likewise, in [0, 1]. The defaults are the authors'.
    l0 counts the components that change: three of a coloured pixel.
    """

    norm: str = "linf"
    step_size: float = 1.0
    last_step_size: float = 0.01
    gamma: float = 0.05
    last_gamma: float = 0.001

    NAME: ClassVar[str] = "fmn"
    NORMS: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1", "l0")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("step_size", "last_step_size"):
            checks.number(name, getattr(self, name))
        for name in ("gamma", "last_gamma"):
            checks.number(name, getattr(self, name), high=1.0)

    def pace(self, step: Array) -> Mapping[str, Array]:
        """`rate`: the step size α.   `gamma`: γ."""
        return {
            "rate": cosine(self.step_size, self.last_step_size, step, self.steps),
            "gamma": cosine(self.gamma, self.last_gamma, step, self.steps),
        }

    def begin(self, ops: Ops, x: Tensor) -> State:
        return {"radius": ops.sum(x - x) + (1.0 if self.norm == "l0" else 0.0)}

    def loss(self, ops: Ops, logits: Tensor, y: Tensor) -> Tensor:
        return margin(ops, logits, y)

    def move(self, ops: Ops, x: Tensor, at: Evaluated, state: State, pace: Mapping[str, Tensor]) -> State:
        adapted = self._counted if self.norm == "l0" else self._scaled
        inner, outer = adapted(ops, state["radius"], pace["gamma"], at)
        radius = ops.where(at.wrong > 0.5, smaller(ops, inner, at.nearest), outer)
        radius = smaller(ops, radius, farthest(ops, self.norm, x, self.bounds))
        offset = at.offset + ops.expand_dims_like(pace["rate"], x) * normalised(ops, at.gradient)
        return {"radius": radius, "point": ops.clip(x + self._projected(ops, offset, radius), *self.bounds)}

    def _scaled(self, ops: Ops, radius: Tensor, gamma: Tensor, at: Evaluated) -> tuple[Tensor, Tensor]:
        """The next radius after a misclassified point, and after another."""
        slope = ops.clip(length(ops, DUAL[self.norm], at.gradient), TINY, math.inf)
        estimate = at.size + ops.abs(at.loss) / slope
        least = ops.where(at.nearest < math.inf, radius, estimate)
        return radius * (1.0 - gamma), (1.0 + gamma) * ops.where(radius > least, radius, least)

    def _counted(self, ops: Ops, radius: Tensor, gamma: Tensor, at: Evaluated) -> tuple[Tensor, Tensor]:
        """The same for a number of components."""
        fewer, more = ops.floor(radius * (1.0 - gamma)), ops.floor(radius * (1.0 + gamma))
        fewer = ops.clip(smaller(ops, fewer, radius - 1.0), 0.0, math.inf)
        return fewer, ops.where(more > radius + 1.0, more, radius + 1.0)

    def _projected(self, ops: Ops, offset: Tensor, radius: Tensor) -> Tensor:
        """The point of the ball nearest to the offset."""
        if self.norm == "l0":
            return largest(ops, offset, radius)
        if self.norm == "l1":
            return project(ops, offset, offset - offset, radius, _EVERYWHERE)
        if self.norm == "l2":
            size = ops.clip(length(ops, "l2", offset), TINY, math.inf)
            return offset * ops.expand_dims_like(ops.clip(radius / size, 0.0, 1.0), offset)
        limit = ops.expand_dims_like(radius, offset) * ops.ones_like(offset)
        return ops.clip(offset, -limit, limit)
