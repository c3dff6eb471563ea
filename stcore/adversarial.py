"""Vanilla adversarial training (Madry et al., 2018; paper Eq. 2): mean CE(f(x'), y), with x' found by PGD.

The paper leaves start and batch-norm mode of its baseline open. Ours: x' starts uniformly in the ball,
clipped to the pixel range, and is searched for under running statistics; only x' is forwarded for the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

from stcore import checks
from stcore.ascent import ascend
from stcore.losses import cross_entropy
from stcore.objective import PerExample
from stcore.protocols import Classifier, Mode, Tensor
from stcore.search import noise_laws, starts


@dataclass(frozen=True)
class AdversarialConfig:
    """The settings of adversarial training; the defaults are the paper's for CIFAR-10 (section 5).

    epsilon: radius of the ball, in units of pixels in [0, 1].   step_size: α.   steps: K.
    init: `uniform` (in the ball) | `gaussian` (noise_std · N(0, 1)) | `natural` (x itself).
    UsageError for a value out of range.
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    init: str = "uniform"
    noise_std: float = 1e-3
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        checks.search(self, inits=("uniform", "gaussian", "natural"))
        checks.number("noise_std", self.noise_std)

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return noise_laws(self, count=1)

    def phase(self, epoch: int) -> int:
        return 0

    def find(self, model: Classifier, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0) -> Tensor:
        """x' after K steps uphill on the cross-entropy."""
        (start,) = starts(self, x, noise)
        return ascend(model, x, y, model.ops.clip(start, *self.bounds), cross_entropy, self)

    def losses(self, model: Classifier, x: Tensor, y: Tensor, adversarial: Tensor, phase: int = 0) -> PerExample:
        """Cross-entropy of x', whose forward alone enters the running statistics."""
        loss = cross_entropy(model.ops, model.logits(adversarial, Mode.TRAIN, dropout=True), y)
        return PerExample(loss, {"adversarial_loss": loss})
