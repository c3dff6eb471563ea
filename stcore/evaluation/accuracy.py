"""Accuracies with their Clopper–Pearson intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Accuracy:
    """How many of `total` images were classified correctly."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.correct / self.total

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The Clopper–Pearson interval of the share: exact for a binomial count, also near 0 and 1."""
        from scipy.special import betaincinv

        tail, k, n = (1 - confidence) / 2, self.correct, self.total
        low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
        high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
        return low, high


def together(parts: Sequence[Mapping[str, Accuracy]]) -> dict[str, Accuracy]:
    """The accuracies on all images, by name, of those on the parts that they came in."""
    return {
        name: Accuracy(sum(part[name].correct for part in parts), sum(part[name].total for part in parts))
        for name in parts[0]
    }
