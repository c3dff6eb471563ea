"""Geometry-aware instance-reweighted adversarial training (GAIRAT; Zhang et al., 2021): mean ω · CE(f(x'), y).

κ of an example counts the PGD iterates that are classified correctly before their step: the fewer, the nearer the
decision boundary, and the larger the weight ω, normalised to a mean of one over the batch. Before the epoch
`begin_epoch` all weights are one: plain adversarial training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stcore.base import checks
from stcore.core.losses import correct, cross_entropy
from stcore.core.objective import Passes, PerExample
from stcore.core.search import ascend_and_tally, noise_laws, starts
from stcore.methods.metrics import with_squares
from stcore.protocols import Mode, Network, Ops, Tensor

WEIGHTINGS = ("tanh", "sigmoid", "discrete")


class Counted(NamedTuple):
    """Adversarial examples shaped like x, and their κ (B,)."""

    adversarial: Tensor
    kappa: Tensor


@dataclass(frozen=True)
class GairatConfig:
    """The settings of GAIRAT, as published, with the ball and step of the paper's protocol (section 5).

    epsilon: radius of the ball, in units of pixels in [0, 1].   step_size: α.   steps: K, at least 1.
    norm: `linf` | `l2`.   bounds: the range of pixels.
    weighting: tanh | sigmoid of λ + 5·(1 − 2κ/K), or discrete: (K + 1 − κ)/(K + 1).   shift: λ, in [−20, 20].
    begin_epoch: the first epoch (from 1) with weights; 60 of 120 as published.
    init: `uniform` (in the ball) | `gaussian` (noise_std · N(0, 1)) | `natural`, clipped to the pixel range.

    Raises UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    weighting: str = "tanh"
    shift: float = -1.0
    begin_epoch: int = 60
    init: str = "uniform"
    noise_std: float = 1e-3
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        checks.search(self, inits=("uniform", "gaussian", "natural"))
        checks.whole("steps", self.steps, 1)
        checks.choice("weighting", self.weighting, WEIGHTINGS)
        checks.number("shift", self.shift, low=-20.0, high=20.0)
        checks.whole("begin_epoch", self.begin_epoch)

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return noise_laws(self, count=1)

    @property
    def passes(self) -> Passes:
        return Passes(self.steps + 1, self.steps, 1)

    def phase(self, epoch: int) -> int:
        return int(epoch >= self.begin_epoch)

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0) -> Counted:
        """Finds x' by K steps that maximise the cross-entropy, and its κ."""
        ops = model.ops
        (start,) = starts(self, x, noise)
        return Counted(
            *ascend_and_tally(
                model,
                x,
                ops.clip(start, *self.bounds),
                lambda z: cross_entropy(ops, z, y),
                self,
                tally=lambda z: correct(ops, z, y),
            )
        )

    def losses(self, model: Network, x: Tensor, y: Tensor, examples: Counted, phase: int = 0) -> PerExample:
        """Returns the weighted cross-entropy of x'; only its forward updates the running statistics."""
        ops, (adversarial, kappa) = model.ops, examples
        loss = cross_entropy(ops, model.logits(adversarial, Mode.TRAIN, dropout=True), y)
        weights = self.weights(ops, kappa) if phase else ops.ones_like(kappa)
        return PerExample(weights * loss, {**with_squares(adversarial_loss=loss), "kappa": kappa})

    def weights(self, ops: Ops, kappa: Tensor) -> Tensor:
        """Returns ω (B,), with mean one over the batch, for κ (B,)."""
        if self.weighting == "discrete":
            raw = (self.steps + 1.0 - kappa) / (self.steps + 1.0)
        else:
            slope = 2.0 if self.weighting == "tanh" else 1.0  # ½·(1 + tanh a) is the sigmoid of 2a
            raw = sigmoid(ops, slope * (self.shift + 5.0 - kappa * (10.0 / self.steps)))
        return raw / ops.mean(raw)


def sigmoid(ops: Ops, a: Tensor) -> Tensor:
    """Logistic sigmoid 1/(1 + e^−a), elementwise, for moderate a (no overflow guard)."""
    return 1.0 / (1.0 + ops.exp(-a))
