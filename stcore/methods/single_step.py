"""Adversarial training by a single step: N-FGSM, FGSM-RS, and a consistency term after LIET.

Mean CE(f(x'), y), with x' one step from the noisy start x0 (`stcore.methods.single_step_search`):

    n-fgsm            noise of 2ε, a step of ε, not projected (de Jorge et al., 2022)
    fgsm-rs           noise of ε, a step of 1.25 ε, projected (Wong et al., 2020)
    fgsm-consistency  noise of ε, a step of ε, projected; + λ · JS(p(x0)‖p(x')), after LIET (Chen et al., 2025)

In all of them every forward is made in training mode, as published: that of the search, too, moves the running
statistics. LIET starts at class-wise perturbations that it keeps between steps; ours starts at noise alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from stcore.base import checks
from stcore.core.divergences import js
from stcore.core.losses import cross_entropy, smoothed
from stcore.core.objective import Passes, PerExample
from stcore.methods import single_step_search
from stcore.methods.metrics import with_squares
from stcore.methods.single_step_search import ascend, noise_laws, start
from stcore.protocols import Mode, Network, Tensor


@dataclass(frozen=True)
class SingleStepConfig:
    """The settings of single-step adversarial training; the defaults are N-FGSM's for CIFAR-10.

    epsilon: radius ε of the ball, in units of pixels in [0, 1].   norm: `linf` | `l2`.   bounds: range of pixels.
    start_scale: k, the radius of the uniform start in units of ε.   step_scale: α/ε.   steps: number of steps.
    project: whether each step is projected to the ball.
    search_mode: the batch-norm mode of the search: eval | batch | train.
    consistency: weight λ of JS(p(x0)‖p(x')), in nats; 0: no such term, and no forward for it.
    label_smoothing: share of the target spread over all classes, in the loss, not in the search.

    Raises UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    start_scale: float = 2.0
    step_scale: float = 1.0
    steps: int = 1
    project: bool = False
    search_mode: str = "train"
    consistency: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        single_step_search.check(self)
        checks.number("consistency", self.consistency)
        checks.number("label_smoothing", self.label_smoothing, high=1.0)

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return noise_laws(self)

    @property
    def passes(self) -> Passes:
        outer = 1 + bool(self.consistency)
        return Passes(self.steps + outer, self.steps, outer)

    def phase(self, epoch: int) -> int:
        return 0

    def find(
        self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0
    ) -> tuple[Tensor, ...]:
        """Finds x' from the start x0; returns both if the loss compares them."""
        point = start(model.ops, self, x, noise)
        found = ascend(model, x, y, point, self)
        return (*found, point) if self.consistency else found

    def losses(
        self, model: Network, x: Tensor, y: Tensor, examples: tuple[Tensor, ...], phase: int = 0
    ) -> PerExample:
        """Returns CE of x', plus λ · JS if there is a start; both forwards update the running statistics."""
        ops, (example, *points) = model.ops, examples
        logits = model.logits(example, Mode.TRAIN, dropout=True)
        term = cross_entropy(ops, logits, y)
        loss, metrics = smoothed(ops, term, logits, self.label_smoothing), with_squares(adversarial_loss=term)
        for point in points:
            at_start = model.logits(point, Mode.TRAIN, dropout=True)
            gap = js(ops, ops.log_softmax(at_start), ops.log_softmax(logits))
            loss, metrics = loss + self.consistency * gap, metrics | {"divergence": gap}
        return PerExample(loss, metrics)
