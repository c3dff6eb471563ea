"""MART (Wang et al., 2020): misclassification-aware adversarial training.

    mean BCE(f(x'), y) + β · (1 − p_y(x)) · KL(p(x)‖p(x')),   BCE = −log p_y(x') − log(1 − max_{j≠y} p_j(x'))

x' maximises the cross-entropy from small noise under running statistics. Every factor is differentiated, 1 − p_y
too. The small constants are those of the released code.
"""

from __future__ import annotations

from dataclasses import dataclass

from stcore.base import checks
from stcore.core.losses import best_other, cross_entropy, expected, expected_at_label
from stcore.core.objective import Passes, PerExample
from stcore.core.search import noise_laws
from stcore.methods import neighbours
from stcore.methods.neighbours import combine, find_each
from stcore.protocols import Mode, Network, Ops, Tensor


@dataclass(frozen=True)
class MartConfig:
    """The settings of MART; the defaults are the paper's for CIFAR-10 (section 5).

    epsilon: radius of the ball, in units of pixels in [0, 1].   step_size: α.   steps: K.
    norm: `linf` | `l2`.   bounds: the range of pixels.
    beta: weight of the KL term.   init: `gaussian` (noise_std · N(0, 1)) | `uniform` (in the ball) | `natural`.
    examples: number of neighbours of each image, from independent starts; `combine`: mean | max of their whole
    adversarial parts (MART†, Appendix C: two and the mean).
    Raises UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    beta: float = 5.0
    init: str = "gaussian"
    noise_std: float = 1e-3
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    examples: int = 1
    combine: str = "mean"

    def __post_init__(self) -> None:
        checks.search(self, inits=("gaussian", "uniform", "natural"))
        checks.number("beta", self.beta)
        neighbours.check(self)

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return noise_laws(self, count=self.examples)

    @property
    def passes(self) -> Passes:
        inner, outer = self.examples * self.steps, self.examples + 1
        return Passes(inner + outer, inner, outer)

    def phase(self, epoch: int) -> int:
        return 0

    def find(
        self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0
    ) -> tuple[Tensor, ...]:
        """Finds each x' by K steps that maximise the cross-entropy; the start is not clipped."""
        return find_each(model, x, noise, lambda z: cross_entropy(model.ops, z, y), self)

    def losses(
        self, model: Network, x: Tensor, y: Tensor, examples: tuple[Tensor, ...], phase: int = 0
    ) -> PerExample:
        """Forwards x, then each x'; all update the running statistics."""
        ops = model.ops
        natural = model.logits(x, Mode.TRAIN, dropout=True)
        adversarial = [model.logits(example, Mode.TRAIN, dropout=True) for example in examples]
        gaps = [weighted_kl(ops, natural, z, y) for z in adversarial]
        parts = [
            boosted_cross_entropy(ops, z, y) + self.beta * gap for z, gap in zip(adversarial, gaps, strict=True)
        ]
        gap = combine(ops, gaps, "mean")
        losses = [cross_entropy(ops, z, y) for z in adversarial]
        logged = neighbours.metrics(ops, cross_entropy(ops, natural, y), losses, gap)
        return PerExample(combine(ops, parts, self.combine), logged)


def boosted_cross_entropy(ops: Ops, logits: Tensor, labels: Tensor) -> Tensor:
    """BCE −log p_y − log(1 − max_{j≠y} p_j): logits (B, C) → (B,), in nats."""
    other = best_other(ops, ops.exp(ops.log_softmax(logits)), labels)
    return cross_entropy(ops, logits, labels) - expected(ops, ops.log(1.0001 - other + 1e-12), labels)


def weighted_kl(ops: Ops, natural: Tensor, adversarial: Tensor, labels: Tensor) -> Tensor:
    """(1 − p_y(x)) · KL(p(x)‖p(x')), (B,), in nats: more weight for a misclassified natural image."""
    log_p = ops.log_softmax(natural)
    p, q = ops.exp(log_p), ops.exp(ops.log_softmax(adversarial))
    return (1.0000001 - expected_at_label(ops, p, labels)) * ops.sum(p * (log_p - ops.log(q + 1e-12)))
