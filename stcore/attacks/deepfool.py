"""DeepFool (Moosavi-Dezfooli et al., 2016): onto the nearest boundary, time and again, until across."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stcore.attacks.hyperplane import DUAL, length, nearest_boundary
from stcore.attacks.stepped import either, flag
from stcore.base import checks
from stcore.core.entry import attack_batch
from stcore.core.losses import margin
from stcore.core.search import forward
from stcore.core.threat import NORMS
from stcore.protocols import Mode, Network, Tensor

_TINY = 1e-30  # where the gradient vanishes


@dataclass(frozen=True)
class DeepFool:
    """A small perturbation that is misclassified, l2 or l∞: a step puts it onto the nearest linearised boundary.

    The network is asked a little beyond, at x + (1 + overshoot) · perturbation in the range of pixels, where the
    boundary is linearised too; an example stops as soon as it is misclassified there. One evaluation per step.
    classes: how many of the likeliest, the label counted, have a boundary, at most all there are; a way back for
        each but the label.
    epsilon: the result is projected to the ball of this radius, for evaluation at an ε; None: as far as it takes.
    """

    steps: int = 50
    overshoot: float = 0.02
    norm: str = "l2"
    epsilon: float | None = None
    classes: int = 10
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.epsilon is None:
            replace(self, epsilon=0.0)  # checks the rest
            return
        checks.ball(self)
        checks.whole("steps", self.steps, 1)
        checks.number("overshoot", self.overshoot)
        checks.whole("classes", self.classes, 2)

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return ()

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], /) -> Tensor:
        ops = model.ops

        def at(total: Tensor, share: float) -> Tensor:
            return ops.clip(x + share * total, *self.bounds)

        def body(total: Tensor) -> tuple[Tensor, ...]:
            point = at(total, 1.0 + self.overshoot)
            here = forward(model, point, Mode.EVAL)
            f, w = nearest_boundary(ops, here, y, self.norm, self.classes)
            gap = f + ops.sum(w * (at(total, 1.0) - point))
            steepest = (
                ops.sign(w) if self.norm == "linf" else w / ops.expand_dims_like(length(ops, "l2", w) + _TINY, w)
            )
            far = ops.expand_dims_like(gap / (length(ops, DUAL[self.norm], w) + _TINY), w)
            wrong = flag(ops, margin(ops, here.logits, y) > 0.0, f)
            return either(ops, wrong, (total,), (total - far * steepest,))

        (total,) = ops.fori_loop(self.steps, body, (x - x,))
        found = at(total, 1.0 + self.overshoot)
        if self.epsilon is None:
            return found
        return NORMS[self.norm](self.epsilon, self.bounds).project(ops, found, x)

    def __call__(
        self,
        model: Any,
        x: Tensor,
        y: Tensor,
        *,
        noise: tuple[Tensor, ...] | None = None,
        rng: np.random.Generator | int | None = None,
    ) -> Tensor:
        """Adversarial examples of native x (B, …), labels y (B,); nothing is drawn."""
        return attack_batch(self, model, x, y, noise, rng)
