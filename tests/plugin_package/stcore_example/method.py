"""Adversarial logit pairing (Kannan et al., 2018): mean CE(f(x'), y) + λ · ‖z(x) − z(x')‖², with z the logits.

x' maximises the cross-entropy from a uniform start in the ball, under running statistics; the pairing is
differentiated in full. The paper takes the cross-entropy of natural and adversarial images mixed, this file of x'.
"""

from __future__ import annotations

from dataclasses import dataclass

from stcore.base import checks
from stcore.core.losses import cross_entropy
from stcore.core.objective import Passes, PerExample
from stcore.core.search import noise_laws
from stcore.methods import neighbours
from stcore.methods.neighbours import find_each
from stcore.protocols import Mode, Network, Tensor


@dataclass(frozen=True)
class AlpConfig:
    """The settings of adversarial logit pairing.

    epsilon: radius of the ball, in units of pixels in [0, 1].   step_size: α.   steps: K.
    init: `uniform` (in the ball) | `gaussian` (noise_std · N(0, 1)) | `natural`.
    UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    pairing: float = 0.5
    """Weight λ of the pairing."""
    init: str = "uniform"
    noise_std: float = 1e-3
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        checks.search(self, inits=("uniform", "gaussian", "natural"))
        checks.number("pairing", self.pairing)

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return noise_laws(self, count=1)

    @property
    def passes(self) -> Passes:
        return Passes(forwards=self.steps + 2, input_backwards=self.steps, weight_backwards=2)

    def phase(self, epoch: int) -> int:
        return 0

    def find(
        self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0
    ) -> tuple[Tensor, ...]:
        """x' after K steps uphill on the cross-entropy, its start not clipped."""
        return find_each(model, x, noise, lambda z: cross_entropy(model.ops, z, y), self)

    def losses(
        self, model: Network, x: Tensor, y: Tensor, examples: tuple[Tensor, ...], phase: int = 0
    ) -> PerExample:
        """Natural, then adversarial forward; both move the running statistics."""
        ops, (neighbour,) = model.ops, examples
        natural = model.logits(x, Mode.TRAIN, dropout=True)
        adversarial = model.logits(neighbour, Mode.TRAIN, dropout=True)
        gap = natural - adversarial
        distance = ops.sum(gap * gap)
        loss = cross_entropy(ops, adversarial, y)
        logged = neighbours.metrics(ops, cross_entropy(ops, natural, y), [loss], distance)
        return PerExample(loss + self.pairing * distance, logged)
