"""Accuracies with their Clopper–Pearson intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape


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


def percent(accuracy: Accuracy) -> str:
    """72.05 [67.02, 76.70]: percent, with the 95 % interval."""
    low, high = accuracy.interval()
    return f"{100 * accuracy.value:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def as_html(scores: Mapping[str, Mapping[str, Accuracy]]) -> str:
    """A table of accuracies in percent with 95 % intervals: a row for each name, a column for each attack."""
    attacks = list(next(iter(scores.values()), {}))
    head = "".join(f"<th>{escape(attack)} %</th>" for attack in attacks)
    rows = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{percent(found[attack])}</td>' for attack in attacks)}</tr>"
        for name, found in scores.items()
    )
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>"
