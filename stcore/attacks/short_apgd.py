"""Auto-PGD in few steps from the image, on whole batches: the search of E-AT (Croce and Hein, 2022).

The steps are those of `stcore.attacks.apgd`, in l1 those of `stcore.attacks.apgd_l1` in one ball.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stcore.attacks.apgd import APGD, share_wrong
from stcore.attacks.apgd_l1 import APGDL1FromImage
from stcore.attacks.on_batch import OnBatch
from stcore.attacks.stepped import SteppedAttack, either
from stcore.base import checks
from stcore.core.losses import cross_entropy
from stcore.protocols import Array, Mode, Network, Ops, Tensor

NORMS = ("linf", "l2", "l1")


class Reached(NamedTuple):
    """What a search reached of each image.

    highest: the point (B, …) of the highest loss.   first_wrong: the first misclassified point, or the highest.
    fooled: 1 if a point was misclassified, the image itself included, else 0: (B,).
    """

    highest: Tensor
    first_wrong: Tensor
    fooled: Tensor


@dataclass(frozen=True)
class ShortAPGD(OnBatch):
    """Auto-PGD on the cross-entropy in the l∞, l2 or l1 ball, from the image, under running statistics.

    epsilon: radius of the ball, in units of pixels in [0, 1]; in l1 the sum of absolute changes.
    steps: number of steps, at least 1.   norm: `linf` | `l2` | `l1`.   bounds: the range of pixels.

    Raises UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    steps: int = 10
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        checks.ball(self, NORMS)
        checks.whole("steps", self.steps, 1)

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return ()

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], /) -> Tensor:
        """Returns adversarial examples, shaped like x: the first misclassified points, or else the highest."""
        return self.search(model, x, y).first_wrong

    def search(self, model: Network, x: Tensor, y: Tensor) -> Reached:
        """Makes K + 1 forwards and K backward passes to the pixels; labels (B,), or soft (B, C)."""
        ops, attack = model.ops, self._stepped
        zero, start = ops.sum(x - x), attack.start(ops, x, y, y, (x - x,))
        pace = attack.pace(np.arange(self.steps))

        def body(step: Tensor, first_wrong: Tensor, fooled: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
            now = {name: _at(ops, numbers, step) for name, numbers in pace.items()}
            state = attack.step(model, x, y, y, dict(zip(start, values, strict=True)), now)
            seen = _with_wrong(ops, state["adversarial"], state["success"], first_wrong, fooled)
            return step + 1.0, *seen, *(state[name] for name in start)

        _, first_wrong, fooled, *values = ops.fori_loop(self.steps, body, (zero, x, zero, *start.values()))
        last = dict(zip(start, values, strict=True))
        logits = model.logits(last["point"], Mode.EVAL)
        first_wrong, fooled = _with_wrong(ops, last["point"], share_wrong(ops, (logits,), y), first_wrong, fooled)
        higher = ops.flag(cross_entropy(ops, logits, y) > last["best_loss"], zero)
        (highest,) = either(ops, higher, (last["point"],), (last["best"],))
        (shown,) = either(ops, fooled, (first_wrong,), (highest,))
        return Reached(highest, shown, fooled)

    @property
    def _stepped(self) -> SteppedAttack:
        if self.norm == "l1":
            return APGDL1FromImage(self.epsilon, bounds=self.bounds, steps=self.steps)
        return APGD(self.epsilon, steps=self.steps, norm=self.norm, bounds=self.bounds)


def _with_wrong(
    ops: Ops, point: Tensor, wrong: Tensor, first_wrong: Tensor, fooled: Tensor
) -> tuple[Tensor, Tensor]:
    """The first misclassified points, and the flags (B,) of images that have one, after a further point."""
    wrong = ops.flag(wrong > 0.5, fooled)
    (first_wrong,) = either(ops, wrong * (1.0 - fooled), (point,), (first_wrong,))
    return first_wrong, ops.clip(fooled + wrong, 0.0, 1.0)


def _at(ops: Ops, numbers: Array, step: Tensor) -> Tensor:
    """The number at a step: (steps,), a whole number (B,) as a float → (B,)."""
    value = step - step + float(numbers[0])
    for place in (np.flatnonzero(np.diff(numbers)) + 1).tolist():
        value = ops.where(step > place - 0.5, step - step + float(numbers[place]), value)
    return value
