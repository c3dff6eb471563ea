"""Searches that the analyses compare: for adversarial (Eq. 1) and for collaborative examples (Eq. 4)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import log_softmax

from stcore.attacks import PGD
from stcore.protocols import Array

PAPER_EPSILON = 8 / 255
"""The ε of the paper's settings."""


def search_for(kind: str, epsilon: float, step_size: float, steps: int, norm: str) -> PGD:
    """Sign-gradient steps on the cross-entropy from the natural image, with running statistics.

    kind: `adversarial` ascends, `collaborative` descends. The gradient at the natural image is not zero, so the
    search needs no initial noise.
    """
    loss = {"adversarial": "cross_entropy", "collaborative": "collaborative"}[kind]
    return PGD(epsilon, step_size, steps, init="natural", norm=norm, loss=loss)


@dataclass(frozen=True)
class SearchSettings:
    """The settings of both searches.

    epsilon: radius of the ball, for pixels in [0, 1].   step_size: α.   steps: their number.   norm: linf, l2.
    Raises UsageError for a value out of range.
    """

    epsilon: float = PAPER_EPSILON
    step_size: float = 1 / 255
    steps: int = 100
    norm: str = "linf"

    def __post_init__(self) -> None:
        _ = self.adversarial  # PGD checks its settings

    @classmethod
    def at(cls, epsilon: float, norm: str = "linf") -> Self:
        """The defaults scaled from 8/255 to another ε."""
        usual, scale = cls(), epsilon / PAPER_EPSILON
        return dataclasses.replace(
            usual,
            epsilon=within(usual.epsilon * scale, norm),
            step_size=usual.step_size * scale,
            norm=norm,
        )

    @property
    def adversarial(self) -> PGD:
        return search_for("adversarial", self.epsilon, self.step_size, self.steps, self.norm)

    @property
    def collaborative(self) -> PGD:
        return search_for("collaborative", self.epsilon, self.step_size, self.steps, self.norm)


def within(epsilon: float, norm: str) -> float:
    """The radius; in l∞ at most 1, the largest difference between two pixels."""
    return min(epsilon, 1.0) if norm == "linf" else epsilon


def cross_entropies(logits: Array, labels: Array) -> Array:
    """−log p_y in nats, (B,) in float64, of NumPy logits (B, C) and labels (B,)."""
    losses: Array = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return losses
