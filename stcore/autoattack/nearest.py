"""Minimum-norm attacks as cascades: one stage, in which each image's nearest adversarial example is looked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stcore.attacks.minimum_norm import MinimumNorm
from stcore.autoattack.versions import Stage


@dataclass(frozen=True)
class NearestSearch:
    """A minimum-norm attack on all images that are classified correctly."""

    attack: MinimumNorm

    def stages(self, classes: int) -> tuple[Stage, ...]:
        """Returns its only stage, whatever the number of classes."""
        return (Stage(self.attack.NAME, self.attack, nearest=True),)

    def check_images(self, shape: Sequence[int]) -> None:
        """Takes images of any shape."""
