"""Accuracies and their 95 % intervals: over images (Clopper–Pearson), over seeds (Student), of a difference."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from html import escape
from typing import Any, Self

import numpy as np


@dataclass(frozen=True)
class Accuracy:
    """The number of correctly classified images out of `total`."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        """The accuracy, in [0, 1]."""
        return self.correct / self.total

    @property
    def repeats(self) -> int:
        """How many of the `total` are the same image."""
        return 1

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The Clopper–Pearson interval (low, high) of the accuracy, in [0, 1]: exact for a binomial count.

        confidence: in (0, 1).   Source: Clopper and Pearson (1934).
        """
        from scipy.special import betaincinv

        tail, k, n = (1 - confidence) / 2, self.correct / self.repeats, self.total / self.repeats
        low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
        high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
        return low, high

    def __add__(self, other: Self) -> Self:
        """The accuracy over both sets of images."""
        return type(self)(self.correct + other.correct, self.total + other.total)

    def as_json(self) -> dict[str, Any]:
        """The accuracy and its 95 % interval as plain numbers in [0, 1], and the counts."""
        return {
            "accuracy": self.value,
            "interval_95": list(self.interval()),
            "correct": self.correct,
            "total": self.total,
        }

    @staticmethod
    def of_json(score: Mapping[str, Any]) -> Accuracy:
        """The accuracy that `as_json` wrote."""
        if "table" not in score:
            return Accuracy(score["correct"], score["total"])
        return MeanAccuracy.of(
            {
                name: {int(severity): Accuracy.of_json(one) for severity, one in row.items()}
                for name, row in score["table"].items()
            }
        )


@dataclass(frozen=True)
class MeanAccuracy(Accuracy):
    """The mean accuracy on several versions of the same images: their corruptions, by name and severity.

    The counts are of all versions. Predictions on versions of one image are not independent, so the interval
    counts images: it is that of the case in which an image is right in all its versions or in none, the widest.
    """

    table: Mapping[str, Mapping[int, Accuracy]]

    @classmethod
    def of(cls, table: Mapping[str, Mapping[int, Accuracy]]) -> MeanAccuracy:
        """The mean of a table whose accuracies are all on the same images."""
        cells = [one for row in table.values() for one in row.values()]
        return cls(sum(one.correct for one in cells), sum(one.total for one in cells), table)

    @property
    def repeats(self) -> int:
        return sum(map(len, self.table.values()))

    def rows(self) -> dict[str, Accuracy]:
        """The mean over the severities, by name."""
        return {name: MeanAccuracy.of({name: row}) for name, row in self.table.items()}

    def columns(self) -> dict[int, Accuracy]:
        """The mean over the names, by severity."""
        severities = next(iter(self.table.values()))
        return {
            severity: MeanAccuracy.of({name: {severity: row[severity]} for name, row in self.table.items()})
            for severity in severities
        }

    def __add__(self, other: Self) -> Self:
        return type(self).of(
            {
                name: {severity: one + other.table[name][severity] for severity, one in row.items()}
                for name, row in self.table.items()
            }
        )  # type: ignore[return-value]

    def as_json(self) -> dict[str, Any]:
        """As of any accuracy, with the whole table."""
        table = {
            name: {str(severity): one.as_json() for severity, one in row.items()}
            for name, row in self.table.items()
        }
        return {**super().as_json(), "table": table}


def merge_accuracies(parts: Sequence[Mapping[str, Accuracy]]) -> dict[str, Accuracy]:
    """The accuracies over all images, by name, from the accuracies on disjoint parts."""
    return {name: reduce(operator.add, (part[name] for part in parts)) for name in parts[0]}


def over_runs(runs: Sequence[Accuracy]) -> tuple[float, float, float]:
    """Mean, low and high of a 95 % interval, in percent: over images for one run, Student's over several seeds."""
    if len(runs) == 1:
        low, high = runs[0].interval()
        return 100 * runs[0].value, 100 * low, 100 * high
    values = np.array([100 * run.correct / run.total for run in runs])
    mean = float(values.mean())
    half = float(_student(len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half


def difference(ours: Sequence[Accuracy], theirs: Sequence[Accuracy]) -> tuple[float, float, float]:
    """The mean of our runs minus that of theirs, in points, with the low and high of its 95 % interval.

    Both are on the same images, and each run has a seed of its own. Where either has several runs, Student's
    interval over seeds, with one spread for both: at least that of rounding to whole images. Of one run each, over
    images: the two Clopper–Pearson intervals joined as in Newcombe (1998), method 10, as if of other images.
    """
    one, other = (np.array([100 * run.value for run in runs]) for runs in (ours, theirs))
    apart, freedom = float(one.mean() - other.mean()), len(one) + len(other) - 2
    if not freedom:
        (low1, high1), (low2, high2) = ([100 * end for end in runs[0].interval()] for runs in (ours, theirs))
        below = math.hypot(one[0] - low1, high2 - other[0])
        return apart, apart - below, apart + math.hypot(high1 - one[0], other[0] - low2)
    spread = float(((one - one.mean()) ** 2).sum() + ((other - other.mean()) ** 2).sum()) / freedom
    rounding = (100 / ours[0].total) ** 2 / 12
    half = _student(freedom) * math.sqrt(max(spread, rounding) * (1 / len(one) + 1 / len(other)))
    return apart, apart - half, apart + half


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's distribution with these degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


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
