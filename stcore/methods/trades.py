"""TRADES (Zhang et al., 2019; paper Eq. 3): mean CE(f(x), y) + β · KL(p(x)‖p(x')), x' maximises the KL.

Other divergences give the paper's comparison in Fig. 6. x' starts from small noise (at x the gradient is exactly
zero); the search uses running statistics; both arguments of the KL are differentiated.
The released code forwards natural, adversarial and again natural images in training mode: all three update the
running statistics, though the two natural forwards give the same logits.
"""

from __future__ import annotations

from dataclasses import dataclass

from stcore.base import checks
from stcore.core.divergences import DIVERGENCES, Divergence, from_natural
from stcore.core.losses import cross_entropy, smoothed
from stcore.core.objective import Passes, PerExample
from stcore.core.search import noise_laws
from stcore.methods import neighbours
from stcore.methods.neighbours import combine, find_each
from stcore.protocols import Mode, Network, Ops, Tensor


@dataclass(frozen=True)
class TradesConfig:
    """The settings of TRADES; the defaults are the paper's for CIFAR-10 (section 5).

    epsilon: radius of the ball, in units of pixels in [0, 1].   step_size: α.   steps: K.
    norm: `linf` | `l2`.   bounds: the range of pixels.
    beta: weight of the divergence.   divergence: kl | symmetric_kl | js | squared_l2 | improved_kl |
        gkl, or a function.
    stop_gradient_targets: as in squeeze training; for the symmetric KL only.
    share_natural: one natural forward serves both terms and updates the running statistics once, unlike the
    released code.   adversarial_first: forwards x' before x, as the AWP and RST code do.
    init: `gaussian` (noise_std · N(0, 1)) or `uniform` (in the ball).
    examples: number of neighbours of each image, from independent starts; `combine`: mean | max of their
    divergences (TRADES†, Appendix C: two and the mean).
    label_smoothing: as in squeeze training.
    Raises UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    beta: float = 6.0
    divergence: str | Divergence = "kl"
    stop_gradient_targets: bool = True
    share_natural: bool = False
    adversarial_first: bool = False
    init: str = "gaussian"
    noise_std: float = 1e-3
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    examples: int = 1
    combine: str = "mean"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        checks.search(self, inits=("gaussian", "uniform"))
        checks.number("beta", self.beta)
        DIVERGENCES.find(self.divergence)
        checks.number("label_smoothing", self.label_smoothing, high=1.0)
        neighbours.check(self)

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return noise_laws(self, count=self.examples)

    @property
    def passes(self) -> Passes:
        inner, outer = self.examples * self.steps, self.examples + 2 - self.share_natural
        return Passes(1 + inner + outer, inner, outer)

    def phase(self, epoch: int) -> int:
        return 0

    def gap(self, ops: Ops, natural: Tensor, adversarial: Tensor) -> Tensor:
        """Returns the divergence of two predictions: logits (B, C), (B, C) → (B,)."""
        log_p, log_q = ops.log_softmax(natural), ops.log_softmax(adversarial)
        return DIVERGENCES.find(self.divergence)(ops, log_p, log_q, self.stop_gradient_targets)

    def find(
        self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0
    ) -> tuple[Tensor, ...]:
        """Finds each x' by K steps that maximise the divergence from the natural prediction, forwarded once."""
        gap = from_natural(model, x, DIVERGENCES.find(self.divergence), self.stop_gradient_targets)
        return find_each(model, x, noise, gap, self)

    def losses(
        self, model: Network, x: Tensor, y: Tensor, examples: tuple[Tensor, ...], phase: int = 0
    ) -> PerExample:
        """Returns CE + β · divergence; every forward updates the running statistics."""
        ops = model.ops

        def forward(pixels: Tensor) -> Tensor:
            return model.logits(pixels, Mode.TRAIN, dropout=True)

        before = tuple(map(forward, examples)) if self.adversarial_first else ()
        logits = forward(x)
        adversarial = before or tuple(map(forward, examples))
        target = logits if self.share_natural else forward(x)

        natural = cross_entropy(ops, logits, y)
        gap = combine(ops, [self.gap(ops, target, z) for z in adversarial], self.combine)
        losses = [cross_entropy(ops, z, y) for z in adversarial]
        target_loss = smoothed(ops, natural, logits, self.label_smoothing)
        return PerExample(target_loss + self.beta * gap, neighbours.metrics(ops, natural, losses, gap))
