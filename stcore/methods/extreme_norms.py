"""Adversarial training in several norms (E-AT; Croce and Hein, 2022): mean CE(f(x'), y), one norm for each batch.

Each step draws the ball of one norm and searches x' in it by Auto-PGD from the image; the balls of the extreme
norms l∞ and l1 also protect what lies between, l2 among it. A ball is drawn in proportion to the share of training
images that were misclassified in it so far: the weaker norm gets more of the steps. As released, that share counts
the whole run, and an image as misclassified if any point of its search was; while a ball was never drawn, all are
drawn alike. Here the shares are those at the begin of the epoch, so that no step waits for the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stcore.attacks.short_apgd import ShortAPGD
from stcore.core.losses import cross_entropy
from stcore.core.objective import Objective, Passes, PerExample
from stcore.errors import UsageError
from stcore.methods.balls import read_balls
from stcore.methods.metrics import with_squares
from stcore.protocols import Array, Mode, Network, Tensor


class Fooled(NamedTuple):
    """Adversarial examples shaped like x, and flags (B,): 1 if a point of the search was misclassified."""

    adversarial: Tensor
    fooled: Tensor


@dataclass(frozen=True)
class EatConfig:
    """The settings of E-AT; the defaults are the published ones for CIFAR-10.

    balls: NORM:RADIUS of each ball, in units of pixels in [0, 1]; a norm is linf, l2 or l1 and comes once.
    steps: K of the search, at least 1.   bounds: the range of pixels.

    The phase is the number of the ball in `balls`.
    Raises UsageError for a value out of range, or a ball that cannot be read.
    """

    balls: tuple[str, ...] = ("linf:8/255", "l1:12")
    steps: int = 10
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        norms = [attack.norm for attack in self.searches] if isinstance(self.balls, tuple) else []
        if not norms or len(set(norms)) < len(norms):
            raise UsageError(
                "balls: expected at least one, each of another norm, such as linf:8/255 l1:12; received "
                f"{self.balls!r}"
            )

    @property
    def searches(self) -> tuple[ShortAPGD, ...]:
        """The search in each ball."""
        return tuple(ShortAPGD(radius, self.steps, norm, self.bounds) for norm, radius in read_balls(self.balls))

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return ()

    @property
    def passes(self) -> Passes:
        return Passes(self.steps + 2, self.steps, 1)

    def phase(self, epoch: int) -> int:
        return 0

    def drawn(self, epoch: int, remembered: Array | None, chance: float) -> int:
        """Returns the number of the ball of a step; remembered: as `remember` returns it."""
        return int(np.searchsorted(np.cumsum(self.probabilities(remembered))[:-1], chance, side="right"))

    def probabilities(self, remembered: Array | None) -> Array:
        """Returns how probable each ball is, (balls,)."""
        even = np.full(len(self.balls), 1 / len(self.balls))
        if remembered is None or not remembered[1].all():
            return even
        shares = remembered[0] / remembered[1]
        return shares / shares.sum() if shares.any() else even

    def numbers(self, epoch: int, remembered: Array | None) -> tuple[Array, ...]:
        return ()

    def told(self, numbers: tuple[Tensor, ...]) -> Objective:
        return self

    def remember(self, remembered: Array | None, tally: Array) -> Array:
        """Returns of each ball the number of images misclassified and searched so far: (2, balls)."""
        counts: Array = np.asarray(tally, np.float64).reshape(2, -1)
        return counts if remembered is None else remembered + counts

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0) -> Fooled:
        """Finds x', the point of the highest cross-entropy in the search in the phase's ball."""
        reached = self.searches[phase].search(model, x, y)
        return Fooled(reached.highest, reached.fooled)

    def losses(self, model: Network, x: Tensor, y: Tensor, examples: Fooled, phase: int = 0) -> PerExample:
        """Returns the cross-entropy of x'; only its forward updates the running statistics."""
        ops, (adversarial, fooled) = model.ops, examples
        loss = cross_entropy(ops, model.logits(adversarial, Mode.TRAIN, dropout=True), y)
        one = ops.ones_like(fooled)
        metrics, counts = with_squares(adversarial_loss=loss), []
        for number, search in enumerate(self.searches):
            here = one if number == phase else one - one
            metrics |= {
                f"{search.norm}_share": here,
                f"{search.norm}_loss_part": here * loss,
                f"{search.norm}_error_part": here * fooled,
            }
            counts.append((ops.sum_all(here * fooled), ops.sum_all(here)))
        return PerExample(
            loss, metrics, ops.norms([count for kind in zip(*counts, strict=True) for count in kind])
        )
