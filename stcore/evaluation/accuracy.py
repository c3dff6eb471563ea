"""Accuracies with their Clopper–Pearson intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Accuracy:
    """The number of correctly classified images out of `total`."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        """The accuracy, in [0, 1]."""
        return self.correct / self.total

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The Clopper–Pearson interval (low, high) of the accuracy, in [0, 1]: exact for a binomial count.

        confidence: in (0, 1).   Source: Clopper and Pearson (1934).
        """
        from scipy.special import betaincinv

        tail, k, n = (1 - confidence) / 2, self.correct, self.total
        low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
        high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
        return low, high


def merge_accuracies(parts: Sequence[Mapping[str, Accuracy]]) -> dict[str, Accuracy]:
    """The accuracies over all images, by name, from the accuracies on disjoint parts."""
    return {
        name: Accuracy(sum(part[name].correct for part in parts), sum(part[name].total for part in parts))
        for name in parts[0]
    }
