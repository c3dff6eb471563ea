"""Verdict on whether runs reproduce a preset: a row of the paper, or one that was run. Pure.

Runs are comparable with a preset if they have its settings, apart from those that do not change the experiment
(`differences.IMMATERIAL`), use its images, are finished, and differ from each other only in their seeds. The
interval of an accuracy is for one run the Clopper–Pearson interval over images, for several the t-interval over
seeds. An accuracy of the paper is reproduced if our 95 % interval overlaps the paper's interval, or contains its
mean if the paper prints no half-width. Of a preset that was run every count is known, on the same images: its
accuracy is reproduced if the 95 % interval of the difference contains zero (`stcore.evaluation.accuracy`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stcore.errors import UsageError
from stcore.evaluation.accuracy import Accuracy, difference, over_runs
from stcore.measured import Measured
from stcore.paper.preset import Expected, Preset
from stcore.results.comparison.differences import reasons
from stcore.runs.known_presets import Known
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

    def as_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "interval_95": [self.low, self.high],
            "expected": self.expected._asdict(),
            "uncertain": self.uncertain,
            "difference": self.difference,
        }


@dataclass(frozen=True)
class MeasuredRow:
    """One accuracy of the runs and that of a preset that was run, in percent: each a mean, low and high.

    apart: the runs' mean minus the preset's, in percentage points, low and high.
    """

    attack: str
    mean: float
    low: float
    high: float
    expected: tuple[float, float, float]
    apart: tuple[float, float, float]

    @property
    def difference(self) -> float:
        return self.apart[0]

    @property
    def reproduced(self) -> bool:
        """Whether the interval of the difference contains zero."""
        return self.apart[1] <= 0 <= self.apart[2]

    def as_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "interval_95": [self.low, self.high],
            "expected": {"mean": self.expected[0], "interval_95": list(self.expected[1:])},
            "difference": self.difference,
            "difference_95": list(self.apart[1:]),
        }


@dataclass(frozen=True)
class Verdict:
    """The comparison's outcome: `rows` compare with the preset only if `reasons` is empty.

    reasons: why the runs are not comparable.   missing: attacks without a number in the runs (on
        the preset's images) or in the paper's text.
    """

    preset: Known
    runs: tuple[str, ...]
    rows: tuple[Row | MeasuredRow, ...]
    reasons: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def comparable(self) -> bool:
        return not self.reasons

    def word(self, row: Row | MeasuredRow) -> str:
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
                row.attack: {**row.as_json(), "reproduced": row.reproduced if self.comparable else None}
                for row in self.rows
            },
            "missing": list(self.missing),
        }


def compare(preset: Known, records: Sequence[Record]) -> Verdict:
    """Compares runs, one per seed, with a preset.

    Raises UsageError for no run, or for a run whose config is not a valid plan.
    """
    if not records:
        raise UsageError("run: expected at least one run's folder, as stcli train leaves it; received none")
    against = reasons(preset, records)
    results = [record.result for record in records if record.result is not None]
    scores = [result.get("checkpoints", {}).get(preset.checkpoint, {}) for result in results]
    rows = _measured_rows(preset, scores) if isinstance(preset, Measured) else _rows(preset, scores)
    if not rows and all(record.result is not None for record in records):
        text = "the preset" if isinstance(preset, Measured) else "the paper's text"
        against.append(f"the runs and {text} have no accuracy of this row in common")
    measured = {row.attack for row in rows}
    wanted = preset.accuracies if isinstance(preset, Measured) else preset.expected
    missing = tuple(attack for attack in wanted if attack not in measured)
    return Verdict(preset, tuple(r.name for r in records), tuple(rows), tuple(dict.fromkeys(against)), missing)


def _rows(preset: Preset, scores: Sequence[Mapping[str, Any]]) -> list[Row | MeasuredRow]:
    """The accuracies that the paper and every run have."""
    return [
        Row(attack, *over_runs(_runs(scores, attack)), expected, attack in preset.uncertain)
        for attack, expected in preset.expected.items()
        if expected is not None and scores and all(attack in score for score in scores)
    ]


def _measured_rows(preset: Measured, scores: Sequence[Mapping[str, Any]]) -> list[Row | MeasuredRow]:
    """The accuracies that the preset and every run have on the same images."""
    rows: list[Row | MeasuredRow] = []
    for attack, expected in preset.accuracies.items():
        if scores and all(score.get(attack, {}).get("total") == expected["total"] for score in scores):
            ours, theirs = _runs(scores, attack), preset.runs(attack)
            rows.append(MeasuredRow(attack, *over_runs(ours), over_runs(theirs), difference(ours, theirs)))
    return rows


def _runs(scores: Sequence[Mapping[str, Any]], attack: str) -> list[Accuracy]:
    return [Accuracy.of_json(score[attack]) for score in scores]
