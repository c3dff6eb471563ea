"""FAB (Croce and Hein, 2020): the nearest misclassified point, by projections onto linearised decision boundaries.

At x_k the boundary is linearised; d₁ and d₂ bring x_k and the natural image x₀ onto it, in the attack's norm and
within the range of pixels; the next point lies between the two, a little beyond the boundary:

    x_{k+1} = (1 − α)(x_k + η d₁) + α (x₀ + η d₂),   α = min(‖d₁‖ / (‖d₁‖ + ‖d₂‖), alpha_max).

From a misclassified point it first goes back to x₀ + β (x_k − x₀). The published code asks the network twice per
step, for the class of x_{k+1} and for the boundary at the point gone back to; here both are asked at x_{k+1}: the
boundary is linearised where the network was asked, whatever point moves on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from stcore.attacks import counter_random
from stcore.attacks.counter_random import Keys
from stcore.attacks.hyperplane import DUAL, boundary, displacement, length, nearest_boundary
from stcore.attacks.stepped import State, claims, either, flag
from stcore.base import checks
from stcore.core.losses import margin, of_label
from stcore.core.search import forward
from stcore.protocols import Array, Mode, Network, Ops, Tensor

_LEAST = 1e-8  # that ‖d‖ counts for, as published


@dataclass(frozen=True)
class FAB:
    """l∞, l2 or l1. A `SteppedAttack`: one evaluation of the start and one after each of the `steps`.

    ε decides when a lane is done, and how far off a random start is: ε/2.
    targeted: the boundary to the lane's target class (FAB-T); else the nearest boundary among the likeliest
    `classes`, the label counted, which costs a way back for each but the label. Any wrong class is a success.
    """

    epsilon: float = 8 / 255
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    steps: int = 100
    targeted: bool = True
    classes: int = 10
    random_start: bool = False
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        checks.ball(self, norms=DUAL)
        checks.whole("steps", self.steps, 1)
        checks.whole("classes", self.classes, 2)
        checks.number("alpha_max", self.alpha_max, high=1.0)
        checks.number("eta", self.eta, 1.0)
        checks.number("beta", self.beta, high=1.0)

    @property
    def evaluations(self) -> int:
        return self.steps + 1

    @property
    def forwards(self) -> int:
        return 1

    @property
    def backwards(self) -> int:
        return 1 if self.targeted else self.classes - 1

    def noise(self, keys: Keys, shape: tuple[int, ...]) -> tuple[Array, ...]:
        """For a random start, a point of the unit sphere."""
        return (counter_random.surface(keys, shape, self.norm),) if self.random_start else ()

    def start(self, ops: Ops, x: Tensor, y: Tensor, target: Tensor, noise: tuple[Tensor, ...]) -> State:
        zero = ops.sum(x - x)
        return {
            "point": ops.clip(x + 0.5 * self.epsilon * noise[0], *self.bounds) if noise else x,
            "adversarial": x,
            "distance": zero + math.inf,
            "success": zero,
        }

    def pace(self, step: Array) -> Mapping[str, Array]:
        """All steps are alike."""
        return {}

    def step(
        self, model: Network, x: Tensor, y: Tensor, target: Tensor, state: State, pace: Mapping[str, Tensor]
    ) -> State:
        ops, point = model.ops, state["point"]
        here = forward(model, point, Mode.EVAL)
        if self.targeted:
            f, w = boundary(ops, here, y, lambda z: of_label(ops, z, target))
        else:
            f, w = nearest_boundary(ops, here, y, self.norm, self.classes)

        offset = point - x
        away = length(ops, self.norm, offset)
        wrong = claims(ops, margin(ops, here.logits, y))
        found = wrong * (1.0 - flag(ops, away > state["distance"], away))
        (adversarial,) = either(ops, found, (point,), (state["adversarial"],))
        distance = ops.where(found > 0.5, away, state["distance"])

        (base,) = either(ops, wrong, (x + self.beta * offset,), (point,))
        across = ops.sum(w * offset)  # ⟨w, p⟩ − ⟨w, x⟩: what the plane's equation loses on the way back to x
        onto = displacement(ops, self.norm, base, w, f - (1.0 - self.beta) * wrong * across, self.bounds)
        from_x = displacement(ops, self.norm, x, w, f - across, self.bounds)
        near, far = (ops.clip(length(ops, self.norm, d), _LEAST, math.inf) for d in (onto, from_x))
        alpha = ops.expand_dims_like(ops.clip(near / (near + far), 0.0, self.alpha_max), x)
        moved = (1.0 - alpha) * (base + self.eta * onto) + alpha * (x + self.eta * from_x)
        return {
            "point": ops.clip(moved, *self.bounds),
            "adversarial": adversarial,
            "distance": distance,
            "success": found * (1.0 - flag(ops, away > self.epsilon, away)),
        }
