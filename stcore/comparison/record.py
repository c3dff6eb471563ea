"""A run as its folder tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore.errors import UsageError
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
    return Record(str(path), folder.read_config(), _read_json(path / ENVIRONMENT), _read_json(path / RESULT))


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"run: {path} is not readable JSON ({error}). Train anew") from error
    if not isinstance(content, dict):
        raise UsageError(f"run: expected an object in {path}, as stcli train leaves it; received {content!r}")
    return content
