"""What there is to report of a run, read from its folder; nothing is computed and no framework is loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore.base.files import read_json
from stcore.base.weights_file import load_weights
from stcore.errors import UsageError
from stcore.evaluation.folder import EVALUATIONS, IDENTITY
from stcore.evaluation.folder import RESULT as FOUND
from stcore.runs.evaluation_identity import fingerprint
from stcore.runs.folder import CHECKPOINTS, METRICS, RESULT
from stcore.runs.plan import Plan
from stcore.runs.record import Record, data_of, plan_of, read_metrics, read_record


@dataclass(frozen=True)
class LaterEvaluation:
    """What `stcli evaluate` left in the run's folder: of which checkpoint, asked for what, and what it found.

    found: None where it is unfinished.   other: what it is of that is not the run's: `other weights`, `other test
        images`, or nothing.
    """

    name: str
    checkpoint: str
    about: Mapping[str, Any]
    found: Mapping[str, Any] | None
    other: str


@dataclass(frozen=True)
class GatheredRun:
    """A run as its folder tells it.

    name: short, and its own among the runs of one report.   plan: None where the settings are of another version.
    weights: by checkpoint, the number of values in its file that are trained.   rows: of metrics.jsonl.
    classes: of the data, as a weights file tells; None where there is none.
    """

    path: Path
    name: str
    record: Record
    plan: Plan | None
    rows: tuple[Mapping[str, Any], ...]
    evaluations: tuple[LaterEvaluation, ...]
    weights: Mapping[str, int]
    classes: int | None

    @property
    def config(self) -> Mapping[str, Any]:
        return self.record.config

    @property
    def result(self) -> Mapping[str, Any] | None:
        return self.record.result

    @property
    def checkpoints(self) -> Mapping[str, Any]:
        """The run's own result by checkpoint and attack; empty where there is none."""
        return {} if self.result is None else self.result["checkpoints"]


def gather(paths: Sequence[Path]) -> tuple[GatheredRun, ...]:
    """The runs in these folders, in their order; UsageError for what is none, or for a damaged file."""
    if not paths:
        raise UsageError("runs: expected one run's folder or more, as stcli train leaves them; received none")
    names = short_names([Path(os.path.abspath(path)) for path in paths])
    return tuple(_gather(path, name) for path, name in zip(paths, names, strict=True))


def short_names(paths: Sequence[Path]) -> list[str]:
    """For each path so many of its last parts as tell it from the others; UsageError where one is there twice."""
    if twice := {str(path) for path in paths if paths.count(path) > 1}:
        raise UsageError(f"runs: expected each run once; received {', '.join(sorted(twice))} more than once")
    length = 1
    while len({path.parts[-length:] for path in paths}) < len(paths):
        length += 1
    return ["/".join(path.parts[-length:]) for path in paths]


def _gather(path: Path, name: str) -> GatheredRun:
    record = read_record(path)
    plan = None
    with contextlib.suppress(UsageError):
        plan = plan_of(record)
    if record.result is not None and not {"checkpoints", "images", "epsilon"} <= set(record.result):
        raise UsageError(f"run: {path / RESULT} is not as stcli train leaves it. Train anew")
    prints, sizes, classes = {}, {}, None
    for checkpoint in CHECKPOINTS:
        if (file := path / f"{checkpoint}.safetensors").is_file():
            arrays, about = load_weights(file)
            classes = int(about["num_classes"]) if "num_classes" in about else classes
            prints[checkpoint] = fingerprint(arrays)
            sizes[checkpoint] = sum(a.size for key, a in arrays.items() if ".running_" not in key)
    rows = tuple(read_metrics(path)) if (path / METRICS).is_file() else ()
    return GatheredRun(path, name, record, plan, rows, _evaluations(path, record, prints), sizes, classes)


def _evaluations(path: Path, record: Record, prints: Mapping[str, str]) -> tuple[LaterEvaluation, ...]:
    found = []
    for file in sorted((path / EVALUATIONS).glob(f"*/*/{IDENTITY}")):
        about, folder = read_json(file), file.parent
        result = read_json(folder / FOUND) if (folder / FOUND).is_file() else None
        other = "" if about["weights"] == prints.get(folder.name) else "other weights"
        other = other or ("" if _same_images(record, about) else "other test images")
        found.append(LaterEvaluation(folder.parent.name, folder.name, about, result, other))
    return tuple(found)


def _same_images(record: Record, about: Mapping[str, Any]) -> bool:
    """Whether it is of the run's test split; where that was cut to a size, a subset is of the whole."""
    on_the_whole = record.config.get("test_size") is not None and about["subset"] is not None
    return on_the_whole or bool(about["data"] == data_of(record).get("test", {}).get("sha256"))
