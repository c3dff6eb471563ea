"""A random corner of the l∞ ball: what any gradient attack has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from stcore.base import checks
from stcore.protocols import Network, Tensor


@dataclass(frozen=True)
class Corner:
    """x + ε · (±1, …, ±1), clipped to the range of pixels."""

    epsilon: float
    norm: str = "linf"

    def __post_init__(self) -> None:
        checks.choice("norm", self.norm, ("linf",))

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return ("uniform",)

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], /) -> Tensor:
        return model.ops.clip(x + self.epsilon * model.ops.sign(noise[0]), 0.0, 1.0)
