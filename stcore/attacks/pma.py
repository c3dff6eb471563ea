"""PMA, the probability margin attack (Xie et al., 2024): projected gradient ascent on p_max − p_y in two halves.

p_y is the label's probability, p_max the largest of another class. The first step ascends p_y; the rest of the
first half −p_y, or p_max in a second run; the second half p_max − p_y. In each half the step size falls from 2ε
to 0 by a cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from stcore.attacks import counter_random
from stcore.attacks.apgd import ascend, share_wrong
from stcore.attacks.counter_random import Keys
from stcore.attacks.stepped import State
from stcore.base import checks
from stcore.core.losses import best_other_probability, label_probability, probability_margin
from stcore.core.search import averaged
from stcore.core.threat import NORMS
from stcore.protocols import Array, Network, Ops, Tensor

OPENINGS: Mapping[str, Callable[[Ops, Tensor, Tensor], Tensor]] = {
    "label": lambda ops, logits, y: -label_probability(ops, logits, y),
    "other": best_other_probability,
}
"""What the first half ascends: −p_y or p_max."""


@dataclass(frozen=True)
class PMA:
    """The probability margin attack in the l∞ ball, as published, or the l2 ball. A `SteppedAttack`.

    It evaluates the start, uniform in the ball and clipped to the range of pixels, and the point after each step.

    epsilon: radius of the ball, in units of pixels in [0, 1].
    opening: what the first half ascends, `label` (−p_y) or `other` (p_max). The published attack is a run of each.
    samples: forwards per evaluation, for a random network, as in `APGD`.

    Raises UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    opening: str = "label"
    steps: int = 100
    samples: int = 1
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        checks.ball(self)
        checks.choice("opening", self.opening, OPENINGS)
        checks.whole("steps", self.steps, 1)
        checks.whole("samples", self.samples, 1)

    @property
    def evaluations(self) -> int:
        return self.steps + 1

    @property
    def forwards(self) -> int:
        return self.samples

    @property
    def backwards(self) -> int:
        return self.samples

    def noise(self, keys: Keys, shape: tuple[int, ...]) -> tuple[Array, ...]:
        """Draws a point of the unit ball."""
        return (counter_random.ball(keys, shape, self.norm),)

    def start(self, ops: Ops, x: Tensor, y: Tensor, target: Tensor, noise: tuple[Tensor, ...]) -> State:
        return {
            "point": ops.clip(x + self.epsilon * noise[0], *self.bounds),
            "adversarial": x,
            "success": ops.sum(x - x),
        }

    def pace(self, step: Array) -> Mapping[str, Array]:
        """`first`: 1 at the first step. `margin`: 1 in the second half. `size`: of the step, at least 0."""
        half = self.steps / 2
        since = np.where(step > half, step - half, step) - 1
        return {
            "first": (step == 0).astype(float),
            "margin": (step >= half).astype(float),
            "size": self.epsilon * (1 + np.cos(np.pi * since / half)),
        }

    def step(
        self, model: Network, x: Tensor, y: Tensor, target: Tensor, state: State, pace: Mapping[str, Tensor]
    ) -> State:
        ops, point = model.ops, state["point"]

        def loss(logits: Tensor) -> Tensor:
            opening = OPENINGS[self.opening](ops, logits, y)
            later = ops.where(pace["margin"] > 0.5, probability_margin(ops, logits, y), opening)
            return ops.where(pace["first"] > 0.5, label_probability(ops, logits, y), later)

        _, gradient, logits = averaged(model, point, loss, self.samples)
        project = NORMS[self.norm](self.epsilon, self.bounds).projection(ops, x)
        wrong = share_wrong(ops, logits, y)
        return {
            "point": project(ascend(ops, self.norm, point, gradient, pace["size"])),
            "adversarial": point,
            "success": ops.flag(wrong > 0.5, wrong),
        }
