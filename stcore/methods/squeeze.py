"""Squeeze training (Li et al., ICLR 2023): Algorithm 1 and Eq. 6.

Around an image x lie an adversarial example x' (a higher loss) and a collaborative one x'' (a lower loss).
One search finds both: they maximise the divergence between their predictions, and before each step the roles are
assigned anew within the triplet {x, x', x''}, so that for those compared

    p_y(x'') ≥ p_y(x) ≥ p_y(x')                                        (the constraint of Eq. 6).

Training squeezes the gap found:   mean CE(f(x), y) + β · divergence(f(x''), f(x')).
x, x' and x'' are three forwards, each with its own batch statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from stcore.base import checks
from stcore.core.divergences import DIVERGENCES, Divergence, for_search
from stcore.core.objective import Passes, PerExample
from stcore.core.search import noise_laws, starts
from stcore.methods.squeeze_loss import squeeze
from stcore.methods.squeeze_search import SqueezePair, ascend
from stcore.protocols import Mode, Network, Tensor


@dataclass(frozen=True)
class SqueezeConfig:
    """The settings of squeeze training; the defaults are the paper's for CIFAR-10 (sections 4.1 and 5).

    epsilon: radius of the ball, in units of pixels in [0, 1].   step_size: α.   steps: K.
    beta: weight of the divergence.
    divergence: symmetric_kl | js | squared_l2 | kl | improved_kl | gkl, or a function.
    inner_divergence: another one for the search (section 4.2); None: the same.
    stop_gradient_targets: the target of each KL term is a constant, as in the released code and as the listed β
        were tuned; False: the formula as printed.
    init: `gaussian` (noise_std · N(0, 1)) or `uniform` (in the ball).
    norm: `linf` | `l2`.   bounds: the range of pixels.
    label_smoothing: share of the natural loss's target spread over all classes, in [0, 1]; 0 in the paper.

    Raises UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    beta: float = 6.0
    divergence: str | Divergence = "symmetric_kl"
    inner_divergence: str | Divergence | None = None
    stop_gradient_targets: bool = True
    init: str = "gaussian"
    noise_std: float = 1e-3
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        checks.search(self, inits=("gaussian", "uniform"))  # at x the gradient is exactly zero
        checks.number("beta", self.beta)
        DIVERGENCES.find(self.divergence)
        DIVERGENCES.find(self.inner_divergence or self.divergence, "inner_divergence")
        checks.number("label_smoothing", self.label_smoothing, high=1.0)

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return noise_laws(self, count=2)

    @property
    def passes(self) -> Passes:
        return Passes(2 * self.steps + bool(self.steps) + 3, 3 * self.steps, 3)

    def start(self, x: Tensor, noise: tuple[Tensor, ...]) -> SqueezePair:
        """Returns two independent noisy copies of x, not clamped."""
        return SqueezePair(*starts(self, x, noise))

    def phase(self, epoch: int) -> int:
        return 0

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0) -> SqueezePair:
        """Finds the pair by K updates from noise."""
        return self.ascend(model, x, y, self.start(x, noise), self.steps)

    def ascend(self, model: Network, x: Tensor, y: Tensor, pair: SqueezePair, steps: int) -> SqueezePair:
        """Returns the pair after `steps` more updates."""
        divergence = for_search(DIVERGENCES.find(self.inner_divergence or self.divergence))
        gap = partial(divergence, stop_targets=self.stop_gradient_targets)
        return ascend(model, x, y, pair, gap, self, steps)

    def losses(self, model: Network, x: Tensor, y: Tensor, pair: SqueezePair, phase: int = 0) -> PerExample:
        """Returns Eq. 6 per example, after the (K+1)-th selection.

        Forwards x'' (BATCH), x, then x' (TRAIN): the latter two update the running statistics.
        """
        collaborative = model.logits(pair.collaborative, Mode.BATCH, dropout=True)
        natural = model.logits(x, Mode.TRAIN, dropout=True)
        adversarial = model.logits(pair.adversarial, Mode.TRAIN, dropout=True)
        return squeeze(model.ops, (natural, adversarial, collaborative), y, self)
