"""The searches that the analyses compare: for adversarial examples (Eq. 1), and for collaborative ones (Eq. 4)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import log_softmax

from stcore.attacks import PGD
from stcore.protocols import Array

PAPER = 8 / 255
"""The ε that the paper's settings go by."""


def towards(kind: str, epsilon: float, step_size: float, steps: int, norm: str) -> PGD:
    """Sign-gradient steps on the cross-entropy from x itself under running statistics: uphill for `adversarial`,
    downhill for `collaborative`. At x the gradient is not zero, so no noise is needed."""
    loss = {"adversarial": "cross_entropy", "collaborative": "collaborative"}[kind]
    return PGD(epsilon, step_size, steps, init="natural", norm=norm, loss=loss)


@dataclass(frozen=True)
class Search:
    """The settings of both searches.

    epsilon: radius of the ball, in units of pixels in [0, 1].   step_size: α.   steps: how many.   norm: linf, l2.
    UsageError for a value out of range.
    """

    epsilon: float = PAPER
    step_size: float = 1 / 255
    steps: int = 100
    norm: str = "linf"

    def __post_init__(self) -> None:
        _ = self.adversarial  # which checks

    @classmethod
    def at(cls, epsilon: float, norm: str = "linf") -> Self:
        """The defaults, which are for 8/255, in proportion to another ε."""
        usual, scale = cls(), epsilon / PAPER
        return dataclasses.replace(
            usual,
            epsilon=within(usual.epsilon * scale, norm),
            step_size=usual.step_size * scale,
            norm=norm,
        )

    @property
    def adversarial(self) -> PGD:
        return towards("adversarial", self.epsilon, self.step_size, self.steps, self.norm)

    @property
    def collaborative(self) -> PGD:
        return towards("collaborative", self.epsilon, self.step_size, self.steps, self.norm)


def within(epsilon: float, norm: str) -> float:
    """A radius in l∞ of at most 1, which is all there is between two pixels."""
    return min(epsilon, 1.0) if norm == "linf" else epsilon


def cross_entropies(logits: Array, labels: Array) -> Array:
    """−log p_y in nats, (B,) in float64: host logits (B, C), labels (B,)."""
    losses: Array = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return losses
