"""Auto-PGD in the l1 ball (Croce and Hein, 2021): sparse steps, in shrinking balls.

Three searches follow one another, in balls of 3ε, 2ε and ε, each from the best point of the one before. A step
changes two thirds as many pixels as the best point so far, all by the same amount. Its length starts at the radius
and shrinks. If the best point has become sparser, the search restarts from there at full length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stcore.attacks import counter_random
from stcore.attacks.apgd import LOSSES, loss_and_gradient
from stcore.attacks.counter_random import Keys
from stcore.attacks.l1_projection import project, signs_of_largest
from stcore.attacks.stepped import State, either
from stcore.base import checks
from stcore.protocols import Array, Network, Ops, Tensor

PHASES = ((3, 30), (2, 30), (1, 40))
"""The searches: radius in ε, and number of steps, before which each evaluates its start."""

_SPARSITY_FACTOR = 1.5  # a step changes this many times fewer pixels than are changed so far
_SHRINK_FACTOR = 1.5  # a step is this many times shorter than the one before
_SHORTEST = 0.1  # of the radius
_FIRST_SHARE = 0.05  # of the pixels, which the first step from the image changes
_TINY = 1e-10  # keeps a division by a zero norm finite, as published


@dataclass(frozen=True)
class APGDL1:
    """Auto-PGD in the l1 ball. A `SteppedAttack`: 100 steps and the evaluation of three starts.

    epsilon: radius of the ball: the sum of absolute pixel changes.   loss, samples: as in `APGD`.
    Only the last search's points count as successes: earlier ones may lie outside the ball.

    Raises UsageError for a value out of range.
    """

    epsilon: float = 12.0
    loss: str = "cross_entropy"
    samples: int = 1
    bounds: tuple[float, float] = (0.0, 1.0)
    norm: ClassVar[str] = "l1"

    def __post_init__(self) -> None:
        checks.ball(self, ("l1",))
        checks.choice("loss", self.loss, LOSSES)
        checks.whole("samples", self.samples, 1)

    @property
    def searches(self) -> tuple[tuple[int, int], ...]:
        """The searches that follow one another, as `PHASES` has them."""
        return PHASES

    @property
    def evaluations(self) -> int:
        return len(self._radii)

    @property
    def forwards(self) -> int:
        return self.samples

    @property
    def backwards(self) -> int:
        return self.samples

    def noise(self, keys: Keys, shape: tuple[int, ...]) -> tuple[Array, ...]:
        """Draws standard normal noise."""
        return (counter_random.normals(keys, shape),)

    def start(self, ops: Ops, x: Tensor, y: Tensor, target: Tensor, noise: tuple[Tensor, ...]) -> State:
        zero = ops.sum(x - x)
        one = zero + 1.0
        radius = one * (self.searches[0][0] * self.epsilon)
        point = project(ops, x + noise[0], x, radius, self.bounds)
        return {
            "point": point,
            "best": point,
            "gradient": x - x,
            "best_loss": one * -math.inf,
            "size": radius,
            "changed": zero,
            "adversarial": x,
            "success": zero,
        }

    def pace(self, step: Array) -> Mapping[str, Array]:
        """`first`, `last`: 1 at a search's start and end. `final`: 1 in the third. `radius`: of the next point."""
        radii = self._radii
        before, radius, after = (
            each[step] for each in (np.append(math.inf, radii[:-1]), radii, np.append(radii[1:], 1))
        )
        flags = {"first": radius < before, "last": after < radius, "final": radius == 1}
        return {name: value.astype(float) for name, value in flags.items()} | {"radius": self.epsilon * after}

    def step(
        self, model: Network, x: Tensor, y: Tensor, target: Tensor, state: State, pace: Mapping[str, Tensor]
    ) -> State:
        ops, s = model.ops, state
        loss, gradient, wrong = loss_and_gradient(model, self.loss, self.samples, s["point"], y, target)
        first, radius = pace["first"], pace["radius"]

        better = ops.flag(first + ops.flag(loss > s["best_loss"], loss) > 0.5, loss)
        best, best_gradient = either(ops, better, (s["point"], gradient), (s["best"], s["gradient"]))
        changed, count = self._spread(ops, x, best, first)
        # By more than a twentieth; computed in whole numbers, which do not round.
        sparser = ops.flag(20.0 * changed < 19.0 * s["changed"], loss)

        restart = ops.flag(first + sparser > 0.5, loss)
        size = ops.where(restart > 0.5, radius, ops.clip(s["size"] / _SHRINK_FACTOR, _SHORTEST * radius, radius))
        point, direction = either(ops, restart, (best, best_gradient), (s["point"], gradient))
        signs = signs_of_largest(ops, direction, count)
        moved = point + signs * ops.expand_dims_like(size / (ops.sum(ops.abs(signs)) + _TINY), signs)
        (moved,) = either(ops, pace["last"], (best,), (moved,))
        return {
            "point": project(ops, moved, x, radius, self.bounds),
            "best": best,
            "gradient": best_gradient,
            "best_loss": ops.where(better > 0.5, loss, s["best_loss"]),
            "size": size,
            "changed": changed,
            "adversarial": s["point"],
            "success": pace["final"] * ops.flag(wrong > 0.5, loss),
        }

    @property
    def _radii(self) -> Array:
        """The radius of each evaluation, in ε."""
        return np.concatenate([np.full(steps + 1, radius) for radius, steps in self.searches])

    def _spread(self, ops: Ops, x: Tensor, best: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """How many pixels the best point changes, (B,), and how many the next step does."""
        changed = ops.sum(ops.abs(ops.sign(best - x)))
        return changed, changed / _SPARSITY_FACTOR


@dataclass(frozen=True)
class APGDL1FromImage(APGDL1):
    """One search in the ball itself that starts at the image: the training search of Croce and Hein (2022).

    steps: its number of steps, the first of which changes a twentieth of the pixels.
    It reviews sparsity and length after each step, as published for fewer than 50.
    """

    steps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("steps", self.steps, 1)

    @property
    def searches(self) -> tuple[tuple[int, int], ...]:
        return ((1, self.steps),)

    def _spread(self, ops: Ops, x: Tensor, best: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        changed, count = super()._spread(ops, x, best, first)
        pixels = ops.sum(ops.ones_like(x))
        return ops.where(first > 0.5, pixels, changed), ops.where(first > 0.5, _FIRST_SHARE * pixels, count)
