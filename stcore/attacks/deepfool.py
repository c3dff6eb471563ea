"""DeepFool (Moosavi-Dezfooli et al., 2016): repeated steps to the nearest decision boundary."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stcore.attacks.hyperplane import DUAL, length, nearest_boundary
from stcore.attacks.on_batch import OnBatch
from stcore.attacks.stepped import either
from stcore.base import checks
from stcore.core.losses import margin
from stcore.core.search import forward
from stcore.core.threat import NORMS
from stcore.protocols import Mode, Network, Tensor

_TINY = 1e-30  # keeps a division by a vanishing gradient finite


@dataclass(frozen=True)
class DeepFool(OnBatch):
    """Finds small adversarial perturbations, in l2 or l∞: steps onto the nearest linearised boundary.

    One evaluation per step, slightly beyond: at x + (1 + overshoot) · perturbation, clipped to the bounds.
    The boundary is linearised there, and an example stops as soon as it is misclassified there.
    steps: at least 1.   overshoot: at least 0.   norm: `l2` | `linf`.   bounds: the range of pixels.
    classes: number of likeliest classes considered, the label included, at least 2; one backward pass for each but
        the label. With fewer classes, all of them.
    epsilon: radius of the ball to project the result onto, in units of pixels in [0, 1]; None: no projection.
    Raises UsageError for a value out of range.
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
        """Returns adversarial examples of x (B, …) with labels y (B,); uses no noise."""
        ops = model.ops

        def perturbed(offset: Tensor, scale: float) -> Tensor:
            return ops.clip(x + scale * offset, *self.bounds)

        def body(offset: Tensor) -> tuple[Tensor, ...]:
            point = perturbed(offset, 1.0 + self.overshoot)
            at_point = forward(model, point, Mode.EVAL)
            f, w = nearest_boundary(ops, at_point, y, self.norm, self.classes)
            gap = f + ops.sum(w * (perturbed(offset, 1.0) - point))
            steepest = (
                ops.sign(w) if self.norm == "linf" else w / ops.expand_dims_like(length(ops, "l2", w) + _TINY, w)
            )
            distance = ops.expand_dims_like(gap / (length(ops, DUAL[self.norm], w) + _TINY), w)
            wrong = ops.flag(margin(ops, at_point.logits, y) > 0.0, f)
            return either(ops, wrong, (offset,), (offset - distance * steepest,))

        (offset,) = ops.fori_loop(self.steps, body, (x - x,))
        found = perturbed(offset, 1.0 + self.overshoot)
        if self.epsilon is None:
            return found
        return NORMS[self.norm](self.epsilon, self.bounds).projection(ops, x)(found)
