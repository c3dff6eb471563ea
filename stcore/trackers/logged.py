"""What a tracker is given of a run, as plain values: its settings, the numbers of an epoch, the final table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stcore.base.extras import of_extra
from stcore.base.files import as_plain
from stcore.evaluation.accuracy import Accuracy

PROJECT = "stcore"
"""The project or experiment, unless the tracker's own environment names another."""
COLUMNS = ("checkpoint", "attack", "accuracy", "low", "high", "correct", "total")
"""Columns of the final table; low and high are ends of the 95 % interval."""


def client(name: str) -> Any:
    """The tracker's package. Raises UsageError if it is not installed."""
    return of_extra("track", name, name)


def settings(run: Any) -> dict[str, Any]:
    """All settings of a run that are set."""
    return {name: value for name, value in as_plain(run.config).items() if value is not None}


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an epoch's metrics by name."""
    return {name: float(value) for name, value in row.items() if isinstance(value, (int, float))}


def table(result: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """The rows of the final table, in the order of `COLUMNS`."""
    for checkpoint, scores in result.get("checkpoints", {}).items():
        for attack, score in scores.items():
            accuracy = Accuracy.of_json(score)
            yield checkpoint, attack, accuracy.value, *accuracy.interval(), accuracy.correct, accuracy.total


def summary(result: Mapping[str, Any]) -> dict[str, float]:
    """The final accuracies by `checkpoint/attack`."""
    return {f"{checkpoint}/{attack}": accuracy for checkpoint, attack, accuracy, *_ in table(result)}


def kept(path: Path) -> str | None:
    """What `path` holds; None if it is missing."""
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None
