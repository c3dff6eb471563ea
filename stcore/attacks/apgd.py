"""Auto-PGD (Croce and Hein, 2020): projected gradient ascent that halves its step size when progress stalls.

The step size starts at 2ε. At checkpoints (after 22, 41, 57, 70, 80, 87, 93 and 99 of 100 steps) it is halved and
the search returns to the best point, if at most a share ρ of the steps since the last checkpoint raised the loss,
or if neither the step size nor the best loss changed since then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stcore.attacks import counter_random
from stcore.attacks.counter_random import Keys
from stcore.attacks.stepped import State, claims, either
from stcore.base import checks
from stcore.core.losses import (
    cross_entropy,
    difference_of_logits_ratio,
    margin,
    probability_margin,
    targeted_difference_of_logits_ratio,
)
from stcore.core.search import averaged
from stcore.core.threat import NORMS
from stcore.protocols import Array, Network, Ops, Tensor

LOSSES: Mapping[str, Callable[[Ops, Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda ops, logits, y, target: cross_entropy(ops, logits, y),
    "dlr": lambda ops, logits, y, target: difference_of_logits_ratio(ops, logits, y),
    "probability_margin": lambda ops, logits, y, target: probability_margin(ops, logits, y),
    "targeted_dlr": targeted_difference_of_logits_ratio,
}
_TINY = 1e-12  # keeps a division by a zero norm finite, as published
_MOMENTUM = 0.25  # share of the previous step that is kept: 1 − α, α = 0.75


@dataclass(frozen=True)
class APGD:
    """Auto-PGD in the l∞ or l2 ball. A `SteppedAttack`: evaluates the start and the point after each step.

    epsilon: radius of the ball, in units of pixels in [0, 1].   rho: ρ, in [0, 1].
    loss: `cross_entropy`, `dlr`, `probability_margin` or `targeted_dlr` (towards the lane's target class).
    samples: forwards per evaluation, for a random network: the gradient is their mean, the loss that of the last;
        a point is misclassified if more than half of them are wrong.

    Raises UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    loss: str = "cross_entropy"
    steps: int = 100
    rho: float = 0.75
    samples: int = 1
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        checks.ball(self)
        checks.choice("loss", self.loss, LOSSES)
        checks.whole("steps", self.steps, 1)
        checks.number("rho", self.rho, high=1.0)
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
        """Draws a point of the unit sphere, for a start on the ball's surface."""
        return (counter_random.surface(keys, shape, self.norm),)

    def start(self, ops: Ops, x: Tensor, y: Tensor, target: Tensor, noise: tuple[Tensor, ...]) -> State:
        point = ops.clip(x + self.epsilon * noise[0], *self.bounds)
        zero = ops.sum(x - x)
        one = zero + 1.0
        return {
            "point": point,
            "before": point,
            "best": point,
            "gradient": x - x,
            "best_loss": one * -math.inf,
            "loss": zero,
            "risen": zero,
            "size": one * (2 * self.epsilon),
            "halved": one,
            "checkpoint_loss": zero,
            "adversarial": x,
            "success": zero,
        }

    def pace(self, step: Array) -> Mapping[str, Array]:
        """`first`: 1 at the first evaluation. `limit`: at a review, the most rises that halve it; else −1."""
        limits = np.full(self.evaluations + 1, -1.0)
        for after, window in checkpoints(self.steps):
            limits[after] = self.rho * window
        return {"first": (step == 0).astype(float), "limit": limits[np.minimum(step, self.evaluations)]}

    def step(
        self, model: Network, x: Tensor, y: Tensor, target: Tensor, state: State, pace: Mapping[str, Tensor]
    ) -> State:
        ops, s = model.ops, state
        project = NORMS[self.norm](self.epsilon, self.bounds).projection(ops, x)
        loss, gradient, wrong = loss_and_gradient(model, self.loss, self.samples, s["point"], y, target)
        first, due = pace["first"], ops.flag(pace["limit"] > -0.5, loss)

        better = ops.flag(loss > s["best_loss"], loss)
        best, best_gradient = either(ops, better, (s["point"], gradient), (s["best"], s["gradient"]))
        best_loss = ops.where(better > 0.5, loss, s["best_loss"])
        risen = (s["risen"] + ops.flag(loss > s["loss"], loss)) * (1.0 - first)
        checkpoint_loss = ops.where(first > 0.5, loss, s["checkpoint_loss"])

        oscillates = 1.0 - ops.flag(risen > pace["limit"], loss)
        stuck = (1.0 - s["halved"]) * (1.0 - ops.flag(best_loss > checkpoint_loss, loss))
        halve = due * ops.flag(oscillates + stuck > 0.5, loss)
        size = s["size"] * (1.0 - 0.5 * halve)
        point, direction = either(ops, halve, (best, best_gradient), (s["point"], gradient))

        stepped = project(ascend(ops, self.norm, point, direction, size))
        keep = ops.expand_dims_like((1.0 - first) * _MOMENTUM, x)
        moved = stepped - keep * (stepped - point) + keep * (point - s["before"])
        return {
            "point": project(moved),
            "before": point,
            "best": best,
            "gradient": best_gradient,
            "best_loss": best_loss,
            # As in the reference, which counts the first rise from 0, not from the start's loss.
            "loss": ops.where(first > 0.5, first - first, loss),
            "risen": risen * (1.0 - due),
            "size": size,
            "halved": ops.where(due > 0.5, halve, s["halved"]),
            "checkpoint_loss": ops.where(due > 0.5, best_loss, checkpoint_loss),
            "adversarial": s["point"],
            "success": ops.flag(wrong > 0.5, loss),
        }


def loss_and_gradient(
    model: Network, loss: str, samples: int, point: Tensor, y: Tensor, target: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns at `point` (B, …) the loss (B,), its gradient (B, …), and the share (B,) of wrong forwards.

    Over several forwards the gradient is the mean, and the loss that of the last.
    """
    ops = model.ops
    value, gradient, logits = averaged(model, point, lambda z: LOSSES[loss](ops, z, y, target), samples)
    return value, gradient, share_wrong(ops, logits, y)


def share_wrong(ops: Ops, logits: Sequence[Tensor], y: Tensor) -> Tensor:
    """The share (B,) of forwards, with these logits (B, C) each, that may be misclassified (see `claims`)."""
    first, *others = (claims(ops, margin(ops, z, y)) for z in logits)
    return sum(others, first) / len(logits) if others else first


def checkpoints(steps: int) -> list[tuple[int, int]]:
    """Returns after which steps the step size is reviewed, each with the number of steps since the last review."""
    window, least, shrink = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    reviews, after = [], window
    while after <= steps:
        reviews.append((after, window))
        window = max(window - shrink, least)
        after += window
    return reviews


def ascend(ops: Ops, norm: str, point: Tensor, gradient: Tensor, size: Tensor) -> Tensor:
    """Moves each point (B, …) by its size (B,) in the direction of steepest ascent; does not project."""
    if norm == "linf":
        return point + ops.expand_dims_like(size, point) * ops.sign(gradient)
    length = ops.sqrt(ops.sum(gradient * gradient)) + _TINY
    return point + ops.expand_dims_like(size / length, point) * gradient
