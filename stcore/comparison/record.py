"""A run as its folder tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore.runs import ENVIRONMENT, RESULT, RunFolder


@dataclass(frozen=True)
class Record:
    """What a run was asked for, what it ran on, and how it ended; `result` is None where it has not."""

    name: str
    config: Mapping[str, Any]
    environment: Mapping[str, Any] | None
    result: Mapping[str, Any] | None


def read_record(path: Path) -> Record:
    """The record of a run's folder; UsageError where it is none, or a file of it is damaged."""
    folder = RunFolder.open(path)
    return Record(str(path), folder.read_config(), folder.read_json(ENVIRONMENT), folder.read_json(RESULT))
