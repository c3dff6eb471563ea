"""GAIR-RST (Zhang et al., 2021): the geometry-aware objective on top of TRADES and extra data (see `stcore.data`).

    mean CE(f(x), y) + β · [ω · KL(p(x)‖p(x')) + (1 − ω) · KL(p(x)‖p(x*))],   ω = ½·(1 + tanh(λ + K/2 − κ))

x' maximises TRADES' KL, and κ counts its iterates that are still classified correctly; x* maximises the margin of
Carlini & Wagner. Before the epoch `begin_epoch` it is TRADES with x' only. Published at ε = 0.031 with λ = 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stcore.base import checks
from stcore.core.divergences import from_natural, kl
from stcore.core.losses import clipped_margin, correct, cross_entropy
from stcore.core.objective import Passes, PerExample
from stcore.core.search import ascend, ascend_and_tally, noise_laws, starts
from stcore.methods.gairat import sigmoid
from stcore.methods.neighbours import metrics
from stcore.protocols import Mode, Network, Tensor


class TwoSearches(NamedTuple):
    """x' and x*, shaped like x, and κ (B,) of x'; before `begin_epoch` x* is x'."""

    adversarial: Tensor
    kappa: Tensor
    margin: Tensor


@dataclass(frozen=True)
class GairRstConfig:
    """The settings of GAIR-RST, as published, with the ball and step of the paper's protocol (section 5).

    epsilon: radius of the ball, in units of pixels in [0, 1].   step_size: α.   steps: K, of each search.
    norm: `linf` | `l2`.   bounds: the range of pixels.
    beta: weight of the KL terms.   shift: λ.   begin_epoch: the first epoch (from 1) with weights; 100 of 200.
    confidence: x* stops gaining once the margin is this large, in units of logits.
    init: `gaussian` (noise_std · N(0, 1)) or `uniform` (in the ball).
    Raises UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    beta: float = 6.0
    shift: float = 3.0
    begin_epoch: int = 100
    confidence: float = 50.0
    init: str = "gaussian"
    noise_std: float = 1e-3
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        checks.search(self, inits=("gaussian", "uniform"))
        checks.number("beta", self.beta)
        checks.number("shift", self.shift, low=-20.0, high=20.0)
        checks.whole("begin_epoch", self.begin_epoch)
        checks.number("confidence", self.confidence)

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return noise_laws(self, count=2)

    @property
    def passes(self) -> Passes:
        return Passes(1 + 2 * self.steps + 3, 2 * self.steps, 3)

    def phase(self, epoch: int) -> int:
        return int(epoch >= self.begin_epoch)

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0) -> TwoSearches:
        """Finds x', which maximises the KL from the natural prediction, and κ; from `begin_epoch` on also x*."""
        ops = model.ops
        adversarial_start, margin_start = starts(self, x, noise)
        adversarial, kappa = ascend_and_tally(
            model, x, adversarial_start, from_natural(model, x), self, tally=lambda z: correct(ops, z, y)
        )
        if not phase:
            return TwoSearches(adversarial, kappa, adversarial)

        def loss(logits: Tensor) -> Tensor:
            return clipped_margin(ops, logits, y, self.confidence)

        return TwoSearches(adversarial, kappa, ascend(model, x, margin_start, loss, self))

    def losses(self, model: Network, x: Tensor, y: Tensor, examples: TwoSearches, phase: int = 0) -> PerExample:
        """Forwards x', x*, then x, as in the RST code; all update the running statistics."""
        ops = model.ops
        first = model.logits(examples.adversarial, Mode.TRAIN, dropout=True)
        second = model.logits(examples.margin, Mode.TRAIN, dropout=True) if phase else first
        logits = model.logits(x, Mode.TRAIN, dropout=True)
        natural, gap = cross_entropy(ops, logits, y), kl(ops, ops.log_softmax(logits), ops.log_softmax(first))
        if phase:
            weight = sigmoid(ops, 2.0 * (self.shift + self.steps / 2.0 - examples.kappa))
            gap = weight * gap + (1.0 - weight) * kl(ops, ops.log_softmax(logits), ops.log_softmax(second))
        logged = metrics(ops, natural, [cross_entropy(ops, first, y)], gap)
        return PerExample(natural + self.beta * gap, {**logged, "kappa": examples.kappa})
