"""Standard training: mean CE(f(x), y) on natural images."""

from __future__ import annotations

from dataclasses import dataclass

from stcore.core.losses import cross_entropy
from stcore.core.objective import Passes, PerExample
from stcore.methods.metrics import with_squares
from stcore.protocols import Mode, Network, Tensor


@dataclass(frozen=True)
class StandardConfig:
    """Standard training: mean cross-entropy of natural images. It has no settings."""

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return ()

    @property
    def passes(self) -> Passes:
        return Passes(1, 0, 1)

    def phase(self, epoch: int) -> int:
        return 0

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0) -> None:
        """Returns None: standard training needs no examples."""

    def losses(self, model: Network, x: Tensor, y: Tensor, examples: None, phase: int = 0) -> PerExample:
        """Returns the cross-entropy of x, whose forward updates the running statistics."""
        natural = cross_entropy(model.ops, model.logits(x, Mode.TRAIN, dropout=True), y)
        return PerExample(natural, with_squares(natural_loss=natural))
