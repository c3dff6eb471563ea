"""FAB (Croce and Hein, 2020): the nearest misclassified point, by projections onto linearised boundaries.

The boundary is linearised at x_k; d₁ and d₂ bring x_k and the natural image x₀ onto it, in the attack's norm and
within the range of pixels. The next point lies between the two, slightly beyond the boundary:

    x_{k+1} = (1 − α)(x_k + η d₁) + α (x₀ + η d₂),   α = min(‖d₁‖ / (‖d₁‖ + ‖d₂‖), alpha_max).

A misclassified point is first moved back to x₀ + β (x_k − x₀). The published code evaluates the network twice per
step: at x_{k+1} for its class, and at the moved point for the boundary. This one evaluates once: the boundary is
linearised at x_{k+1} in either case.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from stcore.attacks import counter_random
from stcore.attacks.counter_random import Keys
from stcore.attacks.hyperplane import DUAL, boundary, displacement, length, nearest_boundary
from stcore.attacks.stepped import State, claims, either
from stcore.base import checks
from stcore.core.losses import margin
from stcore.core.search import forward
from stcore.protocols import Array, Mode, Network, Ops, Tensor

_SMALLEST = 1e-8  # lower limit of ‖d‖ in α, as published


@dataclass(frozen=True)
class FAB:
    """FAB in l∞, l2 or l1. A `SteppedAttack`: evaluates the start and the point after each of the `steps`.

    epsilon: a lane is done once it finds an example within this radius, in units of pixels in [0, 1]; a random
        start lies at ε/2.
    targeted: uses the boundary to the lane's target class (FAB-T); otherwise the nearest boundary among the
        likeliest `classes`, the label included, with one backward pass for each but the label. Any wrong class is
        a success.
    alpha_max, eta, beta: of the equations above.
    Raises UsageError for a value out of range.
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
        """Draws a point of the unit sphere for a random start; nothing otherwise."""
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
        """Returns nothing: all steps are the same."""
        return {}

    def step(
        self, model: Network, x: Tensor, y: Tensor, target: Tensor, state: State, pace: Mapping[str, Tensor]
    ) -> State:
        ops, point = model.ops, state["point"]
        at_point = forward(model, point, Mode.EVAL)
        if self.targeted:
            f, w = boundary(ops, at_point, y, lambda z: ops.of_label(z, target))
        else:
            f, w = nearest_boundary(ops, at_point, y, self.norm, self.classes)

        offset = point - x
        size = length(ops, self.norm, offset)
        wrong = claims(ops, margin(ops, at_point.logits, y))
        found = wrong * (1.0 - ops.flag(size > state["distance"], size))
        (adversarial,) = either(ops, found, (point,), (state["adversarial"],))
        distance = ops.where(found > 0.5, size, state["distance"])

        (base,) = either(ops, wrong, (x + self.beta * offset,), (point,))
        across = ops.sum(w * offset)  # ⟨w, p⟩ − ⟨w, x⟩: the change of the plane's equation from p to x
        from_base = displacement(ops, self.norm, base, w, f - (1.0 - self.beta) * wrong * across, self.bounds)
        from_x = displacement(ops, self.norm, x, w, f - across, self.bounds)
        near, far = (ops.clip(length(ops, self.norm, d), _SMALLEST, math.inf) for d in (from_base, from_x))
        alpha = ops.expand_dims_like(ops.clip(near / (near + far), 0.0, self.alpha_max), x)
        moved = (1.0 - alpha) * (base + self.eta * from_base) + alpha * (x + self.eta * from_x)
        return {
            "point": ops.clip(moved, *self.bounds),
            "adversarial": adversarial,
            "distance": distance,
            "success": found * (1.0 - ops.flag(size > self.epsilon, size)),
        }
