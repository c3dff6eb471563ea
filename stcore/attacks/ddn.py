"""DDN (Rony et al., 2019): the direction of the perturbation by gradient steps, its l2 norm by whether it fools.

    δ ← δ + α g/‖g‖₂,   ε ← (1 − γ) ε if the point is misclassified, else (1 + γ) ε,   point = x + ε δ/‖δ‖₂,

g the gradient of the cross-entropy. The point is clipped to the range of pixels. Unlike in the published code,
nothing is rounded to 256 levels, and a zero gradient moves nothing, where that code draws a direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from stcore.attacks.hyperplane import length
from stcore.attacks.minimum_norm import TINY, Evaluated, MinimumNorm, cosine, farthest, normalised, smaller
from stcore.attacks.stepped import State
from stcore.base import checks
from stcore.core.losses import cross_entropy
from stcore.protocols import Array, Ops, Tensor

_FIRST, _LAST = 1.0, 0.01  # step size α, annealed


@dataclass(frozen=True)
class DDN(MinimumNorm):
    """Decoupled direction and norm, in l2. See `MinimumNorm` for the fields not named here.

    init_norm: ε at the start, above 0.   gamma: γ, in [0, 1]. The defaults are the authors'.
    """

    init_norm: float = 1.0
    gamma: float = 0.05

    NAME: ClassVar[str] = "ddn"
    NORMS: ClassVar[tuple[str, ...]] = ("l2",)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("init_norm", self.init_norm, TINY)
        checks.number("gamma", self.gamma, high=1.0)

    def pace(self, step: Array) -> Mapping[str, Array]:
        """`rate`: the step size α."""
        return {"rate": cosine(_FIRST, _LAST, step, self.steps)}

    def begin(self, ops: Ops, x: Tensor) -> State:
        return {"radius": ops.sum(x - x) + self.init_norm}

    def loss(self, ops: Ops, logits: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(ops, logits, y)

    def move(self, ops: Ops, x: Tensor, at: Evaluated, state: State, pace: Mapping[str, Tensor]) -> State:
        radius = state["radius"] * (1.0 + self.gamma * (1.0 - 2.0 * at.wrong))
        radius = smaller(ops, radius, farthest(ops, self.norm, x, self.bounds))
        offset = at.offset + ops.expand_dims_like(pace["rate"], x) * normalised(ops, at.gradient)
        scale = radius / ops.clip(length(ops, self.norm, offset), TINY, float("inf"))
        return {"radius": radius, "point": ops.clip(x + offset * ops.expand_dims_like(scale, x), *self.bounds)}
