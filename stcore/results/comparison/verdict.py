"""Verdict on whether runs reproduce a row of the paper. Pure: records in, a verdict out.

Runs are comparable with a row if they have its preset's settings, apart from those that do not change the
experiment (`differences.IMMATERIAL`), use the published pixels, are finished, and differ from each other only in
their seeds. An accuracy is reproduced if our 95 % interval overlaps the paper's interval, or contains its mean if
the paper prints no half-width. For one run it is the Clopper–Pearson interval over images, for several the
t-interval over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stcore.errors import UsageError
from stcore.evaluation.accuracy import Accuracy
from stcore.paper.preset import Expected, Preset
from stcore.results.comparison.differences import reasons
from stcore.runs.record import Record


@dataclass(frozen=True)
class Row:
    """One accuracy of the runs and the paper's, in percent."""

    attack: str
    mean: float
    low: float
    high: float
    expected: Expected
    uncertain: bool

    @property
    def difference(self) -> float:
        """Our mean minus the paper's, in percentage points."""
        return self.mean - self.expected.mean

    @property
    def reproduced(self) -> bool:
        """Whether the two intervals overlap."""
        half = self.expected.half_width or 0.0
        return self.low <= self.expected.mean + half and self.expected.mean - half <= self.high


@dataclass(frozen=True)
class Verdict:
    """The comparison's outcome: `rows` compare with the paper only if `reasons` is empty.

    reasons: why the runs are not comparable.   missing: attacks without a number in the runs or in the paper's
        text.
    """

    preset: Preset
    runs: tuple[str, ...]
    rows: tuple[Row, ...]
    reasons: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def comparable(self) -> bool:
        return not self.reasons

    def word(self, row: Row) -> str:
        """The verdict on one accuracy."""
        if not self.comparable:
            return "not comparable"
        return "reproduced" if row.reproduced else f"off by {row.difference:+.2f} points"

    def as_json(self) -> dict[str, Any]:
        """The verdict as plain JSON values."""
        return {
            "preset": self.preset.name,
            "runs": list(self.runs),
            "checkpoint": self.preset.checkpoint,
            "comparable": self.comparable,
            "reasons": list(self.reasons),
            "accuracies": {
                row.attack: {
                    "mean": row.mean,
                    "interval_95": [row.low, row.high],
                    "expected": row.expected._asdict(),
                    "uncertain": row.uncertain,
                    "difference": row.difference,
                    "reproduced": row.reproduced if self.comparable else None,
                }
                for row in self.rows
            },
            "missing": list(self.missing),
        }


def compare(preset: Preset, records: Sequence[Record]) -> Verdict:
    """Compares runs, one per seed, with the row of a preset.

    Raises UsageError for no run, or for a run whose config is not a valid plan.
    """
    if not records:
        raise UsageError("run: expected at least one run's folder, as stcli train leaves it; received none")
    against = reasons(preset, records)
    rows = _rows(preset, [record.result for record in records if record.result is not None])
    if not rows and all(record.result is not None for record in records):
        against.append("the runs and the paper's text have no accuracy of this row in common")
    measured = {row.attack for row in rows}
    missing = tuple(attack for attack in preset.expected if attack not in measured)
    return Verdict(preset, tuple(r.name for r in records), tuple(rows), tuple(dict.fromkeys(against)), missing)


def _rows(preset: Preset, results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The accuracies that the paper and every result have."""
    scores = [result.get("checkpoints", {}).get(preset.checkpoint, {}) for result in results]
    return [
        Row(attack, *interval([score[attack] for score in scores]), expected, attack in preset.uncertain)
        for attack, expected in preset.expected.items()
        if expected is not None and scores and all(attack in score for score in scores)
    ]


def interval(scores: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """Mean, low and high of a 95 % interval, in percent: over images for one run, over seeds for several."""
    if len(scores) == 1:
        accuracy = Accuracy(scores[0]["correct"], scores[0]["total"])
        return (100 * accuracy.value, *(100 * end for end in accuracy.interval()))  # type: ignore[return-value]
    import numpy as np
    from scipy.special import stdtrit

    values = np.array([100 * score["correct"] / score["total"] for score in scores])
    half = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / math.sqrt(len(values)))
    mean = float(values.mean())
    return mean, mean - half, mean + half
