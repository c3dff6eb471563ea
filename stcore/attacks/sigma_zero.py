"""σ-zero (Cinà et al., 2025): the fewest changed components, by a smooth l0 norm and an adaptive threshold.

Adam (Kingma and Ba, 2015) minimises

    max(z_y − max_{j≠y} z_j, 0) + (1/d) Σ δ²/(δ² + σ)

on gradients divided by their largest entry. After each step, components smaller than the threshold τ are set to
zero; τ rises by t·η while the point is misclassified, and falls by as much otherwise, η the step size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from stcore.attacks.minimum_norm import Evaluated, MinimumNorm, cosine, normalised
from stcore.attacks.stepped import State
from stcore.base import checks
from stcore.core.losses import margin
from stcore.protocols import Array, Ops, Tensor

_LAST = 0.1  # of the step size, which is annealed
_MOMENTUM, _SQUARES, _TINY = 0.9, 0.999, 1e-8  # Adam's


@dataclass(frozen=True)
class SigmaZero(MinimumNorm):
    """σ-zero, in l0: the number of components that change, three of a coloured pixel.

    See `MinimumNorm` for the fields not named here. The defaults are those of the authors' experiments.
    step_size: η at the start.   sigma: σ, the sharpness of the smooth norm, above 0.
    threshold: τ at the start, in units of pixels.   threshold_step: t.
    """

    norm: str = "l0"
    steps: int = 1000
    step_size: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    threshold_step: float = 0.01

    NAME: ClassVar[str] = "sigma-zero"
    NORMS: ClassVar[tuple[str, ...]] = ("l0",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("step_size", "threshold_step"):
            checks.number(name, getattr(self, name))
        checks.number("sigma", self.sigma, 1e-12)
        checks.number("threshold", self.threshold, high=1.0)

    def pace(self, step: Array) -> Mapping[str, Array]:
        """`rate`: η over Adam's correction of the mean.   `squares`: its correction of the squares.

        `rise`: the change of the threshold, by the next step's η.
        """
        now, after = (cosine(self.step_size, _LAST * self.step_size, at, self.steps) for at in (step, step + 1))
        return {
            "rate": now / (1 - _MOMENTUM ** (step + 1)),
            "squares": 1 / (1 - _SQUARES ** (step + 1)),
            "rise": self.threshold_step * after,
        }

    def begin(self, ops: Ops, x: Tensor) -> State:
        return {"mean": x - x, "squares": x - x, "threshold": ops.sum(x - x) + self.threshold}

    def loss(self, ops: Ops, logits: Tensor, y: Tensor) -> Tensor:
        return -margin(ops, logits, y)

    def move(self, ops: Ops, x: Tensor, at: Evaluated, state: State, pace: Mapping[str, Tensor]) -> State:
        squared, size = at.offset * at.offset, ops.sum(ops.ones_like(x))
        denominator = (squared + self.sigma) * (squared + self.sigma) * ops.expand_dims_like(size, x)
        active = ops.expand_dims_like(1.0 - at.wrong, x)
        gradient = active * at.gradient + 2.0 * self.sigma * at.offset / denominator
        gradient = normalised(ops, gradient, "linf")

        mean = _MOMENTUM * state["mean"] + (1.0 - _MOMENTUM) * gradient
        squares = _SQUARES * state["squares"] + (1.0 - _SQUARES) * gradient * gradient
        spread = ops.sqrt(squares * ops.expand_dims_like(pace["squares"], x)) + _TINY
        moved = ops.clip(state["point"] - ops.expand_dims_like(pace["rate"], x) * mean / spread, *self.bounds)
        threshold = ops.clip(state["threshold"] + (2.0 * at.wrong - 1.0) * pace["rise"], 0.0, 1.0)
        small = ops.abs(moved - x) < ops.expand_dims_like(threshold, x)
        return {
            "mean": mean,
            "squares": squares,
            "threshold": threshold,
            "point": ops.where(small, x, moved),
        }
