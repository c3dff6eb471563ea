"""Vanilla adversarial training (Madry et al., 2018; paper Eq. 2): mean CE(f(x'), y), with x' found by PGD.

The paper leaves the start and the batch-norm mode of its baseline open. Ours: x' starts uniformly in the ball,
clipped to the pixel range; the search uses running statistics; the loss forwards x' only.
"""

from __future__ import annotations

from dataclasses import dataclass

from stcore.base import checks
from stcore.core.losses import cross_entropy, smoothed
from stcore.core.objective import Passes, PerExample
from stcore.core.search import ascend, noise_laws, starts
from stcore.methods import neighbours
from stcore.methods.metrics import with_squares
from stcore.methods.neighbours import combine
from stcore.protocols import Mode, Network, Tensor


@dataclass(frozen=True)
class AdversarialConfig:
    """The settings of adversarial training; the defaults are the paper's for CIFAR-10 (section 5).

    epsilon: radius of the ball, in units of pixels in [0, 1].   step_size: α.   steps: K.
    norm: `linf` | `l2`.   bounds: the range of pixels.
    init: `uniform` (in the ball) | `gaussian` (noise_std · N(0, 1)) | `natural` (x).
    examples: number of neighbours of each image, from independent starts; `combine`: mean | max of their losses
    (AT†, Appendix C: two and the mean).
    label_smoothing: share of the target spread over all classes, in the loss, not in the search; 0 in the paper.

    Raises UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    init: str = "uniform"
    noise_std: float = 1e-3
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    examples: int = 1
    combine: str = "mean"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        checks.search(self, inits=("uniform", "gaussian", "natural"))
        neighbours.check(self)
        checks.number("label_smoothing", self.label_smoothing, high=1.0)

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return noise_laws(self, count=self.examples)

    @property
    def passes(self) -> Passes:
        return Passes(self.examples * (self.steps + 1), self.examples * self.steps, self.examples)

    def phase(self, epoch: int) -> int:
        return 0

    def find(
        self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0
    ) -> tuple[Tensor, ...]:
        """Finds each x' by K steps that maximise the cross-entropy."""
        ops = model.ops
        clipped = (ops.clip(start, *self.bounds) for start in starts(self, x, noise))
        return tuple(ascend(model, x, start, lambda z: cross_entropy(ops, z, y), self) for start in clipped)

    def losses(
        self, model: Network, x: Tensor, y: Tensor, examples: tuple[Tensor, ...], phase: int = 0
    ) -> PerExample:
        """Returns the cross-entropy of x'; only its forwards update the running statistics."""
        ops = model.ops
        logits = [model.logits(example, Mode.TRAIN, dropout=True) for example in examples]
        terms = [cross_entropy(ops, z, y) for z in logits]
        targets = [smoothed(ops, term, z, self.label_smoothing) for term, z in zip(terms, logits, strict=True)]
        loss = combine(ops, targets, self.combine)
        return PerExample(loss, with_squares(adversarial_loss=combine(ops, terms, "mean")))
