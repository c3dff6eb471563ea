"""MALT's order of target classes (Melamed, Yehudai and Shamir, 2024): the nearest linearised boundary first.

A targeted attack tries classes j in the order of (z_y − z_j) / ‖∇(z_j − z_y)‖ at the natural image, in the dual
norm: the distance to the boundary of a network that is linear on the way there. By logit a class whose logit
hardly moves may come before one that is nearer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from stcore.attacks.counter_random import Keys
from stcore.attacks.hyperplane import DUAL, at_level, boundary, length
from stcore.attacks.stepped import State
from stcore.base import checks
from stcore.core.search import forward
from stcore.protocols import Array, Mode, Network, Ops, Tensor

CANDIDATES = 100
"""The likeliest classes that are ordered, as published; those after them keep their order by logit."""

_TINY = 1e-36  # keeps a division by a zero norm finite


@dataclass(frozen=True)
class MALT:
    """Measures the distances that order targets. A `SteppedAttack` of one evaluation, which finds no example.

    Its state after the step has `distances` (B, C), infinite for the label and for classes beyond the candidates.
    Classes of equal logits share one distance, along the mean of their gradients.

    norm: linf, l2 or l1.   candidates: the number of likeliest classes but the label, one backward pass for each.
    Raises UsageError for a value out of range.
    """

    norm: str = "linf"
    candidates: int = CANDIDATES
    epsilon: ClassVar[float] = 0.0
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    evaluations: ClassVar[int] = 1
    forwards: ClassVar[int] = 1

    def __post_init__(self) -> None:
        checks.choice("norm", self.norm, DUAL)
        checks.whole("candidates", self.candidates, 1)

    @property
    def backwards(self) -> int:
        return self.candidates

    def noise(self, keys: Keys, shape: tuple[int, ...]) -> tuple[Array, ...]:
        """Draws nothing: distances are those of the natural image."""
        return ()

    def start(self, ops: Ops, x: Tensor, y: Tensor, target: Tensor, noise: tuple[Tensor, ...]) -> State:
        return {"adversarial": x, "success": ops.sum(x - x)}

    def pace(self, step: Array) -> Mapping[str, Array]:
        """Returns nothing: there is one step."""
        return {}

    def step(
        self, model: Network, x: Tensor, y: Tensor, target: Tensor, state: State, pace: Mapping[str, Tensor]
    ) -> State:
        ops, at_x = model.ops, forward(model, x, Mode.EVAL)
        infinite = ops.ones_like(at_x.logits) * math.inf
        others = ops.where(ops.one_hot(y, at_x.logits), -infinite, at_x.logits)

        def measure(level: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
            f, w = boundary(ops, at_x, y, at_level(ops, others, level))
            distance = ops.abs(f) / (length(ops, DUAL[self.norm], w) + _TINY)
            distance = ops.where(level > -math.inf, distance, math.inf)  # else no class is left but masked ones
            above = ops.expand_dims_like(level, others)
            lower, higher = others < above, others > above
            measured = ops.expand_dims_like(distance, others) * ops.ones_like(others)
            distances = ops.where(lower, distances, ops.where(higher, distances, measured))
            return ops.max(ops.where(lower, others, -infinite)), distances

        _, distances = ops.fori_loop(self.candidates, measure, (ops.max(others), infinite))
        return {**state, "distances": distances}
