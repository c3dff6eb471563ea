"""Attacks for evaluation: FGSM and PGD, with the paper's settings by name.

An attack is a frozen dataclass. Called as `attack(model, x, y)` on a `torch.nn.Module` or `keras.Model` with
native pixels in [0, 1] it returns adversarial examples shaped like x; mode, statistics, weights and gradients of
the model stay as they are. `PRESETS` holds the settings of the paper's evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from stcore import checks
from stcore.api import attack_batch
from stcore.ascent import ascend
from stcore.losses import cross_entropy
from stcore.protocols import Network, Tensor
from stcore.search import noise_laws, starts


class Attack(Protocol):
    """What evaluation asks of an attack."""

    @property
    def noise_laws(self) -> tuple[str, ...]:
        """The unit noise it starts from (see `stcore.noise`)."""

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], /) -> Tensor:
        """Adversarial examples of a batch."""


@dataclass(frozen=True)
class PGD:
    """Projected gradient ascent on the cross-entropy (Madry et al., 2018; Eq. 1), last iterate, one restart.

    The defaults are the paper's PGD-20: ε = 8/255, α = 2/255, started uniformly in the ball and not clipped before
    the first gradient, under running statistics; misclassified images are attacked too.
    init: `uniform` | `gaussian` (noise_std · N(0, 1)) | `natural` (x itself, which makes it I-FGSM).
    """

    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 20
    init: str = "uniform"
    noise_std: float = 1e-3
    norm: str = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        checks.search(self, inits=("uniform", "gaussian", "natural"))

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return noise_laws(self, count=1)

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], /) -> Tensor:
        (start,) = starts(self, x, noise)
        return ascend(model, x, start, lambda z: cross_entropy(model.ops, z, y), self)

    def __call__(
        self,
        model: Any,
        x: Tensor,
        y: Tensor,
        *,
        noise: tuple[Tensor, ...] | None = None,
        rng: np.random.Generator | int | None = None,
    ) -> Tensor:
        """Adversarial examples of native x (B, …), labels y (B,); the start is `noise`, or drawn from `rng`."""
        return attack_batch(self, model, x, y, noise, rng)


def FGSM(epsilon: float = 8 / 255, norm: str = "linf", bounds: tuple[float, float] = (0.0, 1.0)) -> PGD:
    """The fast gradient sign method (Goodfellow et al., 2015): one step of size ε from x itself."""
    return PGD(epsilon, step_size=epsilon, steps=1, init="natural", norm=norm, bounds=bounds)


def preset(name: str, epsilon: float, norm: str = "linf") -> PGD:
    """`fgsm`, `pgd20` or `pgd100` at this ε, with the paper's ratio α = ε/4; UsageError for another name."""
    checks.choice("attack", name, PRESETS)
    if name == "fgsm":
        return FGSM(epsilon, norm)
    return PGD(epsilon, step_size=epsilon / 4, steps=int(name.removeprefix("pgd")), norm=norm)


PRESETS = ("fgsm", "pgd20", "pgd100")
