"""Records of runs as `stcli train` leaves them: settings, accuracies of a checkpoint, cost of an epoch."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore.base.files import from_json
from stcore.errors import UsageError
from stcore.evaluation.accuracy import Accuracy
from stcore.runs.folder import CONFIG, ENVIRONMENT, METRICS, RESULT, RunFolder
from stcore.runs.plan import Plan, make_plan


@dataclass(frozen=True)
class Record:
    """A run's settings, environment and result; `result` is None if the run is unfinished."""

    name: str
    config: Mapping[str, Any]
    environment: Mapping[str, Any] | None
    result: Mapping[str, Any] | None


def read_record(path: Path) -> Record:
    """The record of a run's folder; UsageError if it is none, or if a file of it is damaged."""
    folder = RunFolder.open(path)
    return Record(str(path), folder.read_config(), folder.read_json(ENVIRONMENT), folder.read_json(RESULT))


@dataclass(frozen=True)
class FinishedRun:
    """A run with the accuracies of one of its checkpoints, by attack.

    settings: all that affect the results but the seed, flat and complete.   data: sizes and fingerprints by part
    of the data.   seconds, images_per_second: of each epoch.
    """

    path: Path
    plan: Plan
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    accuracies: Mapping[str, Accuracy]
    seconds: tuple[float, ...]
    images_per_second: tuple[float, ...]


def find_runs(words: Sequence[str], leave_out: Callable[[str], None]) -> list[Path]:
    """The folders of runs among these paths, in the folders below them, or matched by these globs; each once.

    leave_out: is given a message for each path without runs.   Raises UsageError for a path that does not exist.
    """
    found: dict[Path, Path] = {}
    for word in words:
        paths = [word] if os.path.lexists(word) else sorted(glob.glob(word, recursive=True))
        if not paths:
            raise UsageError(f"runs: expected runs' folders, a folder of them or a glob; {word} does not exist")
        for path in map(Path, paths):
            below = list(_runs_in(path))
            if not below:
                leave_out(f"{path} is no run: it has no {CONFIG}")
            for run in below:
                found.setdefault(run.resolve(), run)
    return list(found.values())


def _runs_in(path: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(path):
        if CONFIG in files:
            below.clear()  # a run holds no other
            yield Path(folder)
        below.sort()


def read_run(path: Path, checkpoint: str) -> FinishedRun:
    """A run with the accuracies of `checkpoint`; UsageError if it has none, or if a file is damaged."""
    record = read_record(path)
    if record.result is None:
        epochs = len(metrics_so_far(path))
        raise UsageError(
            f"{path} is unfinished after {epochs} epochs. To resume: stcli train --resume {shlex.quote(str(path))}"
        )
    plan = plan_of(record)
    try:
        checkpoints = record.result["checkpoints"]
        scores = {name: Accuracy.of_json(s) for name, s in checkpoints.get(checkpoint, {}).items()}
        metrics = read_metrics(path)
        costs = [tuple(float(row[name]) for row in metrics) for name in ("seconds", "images_per_second")]
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: {RESULT} or {METRICS} is not as stcli train leaves it ({error!r})") from error
    if not scores:
        raise UsageError(f"{path} has no checkpoint {checkpoint}; it has {', '.join(checkpoints)}")
    return FinishedRun(path, plan, recorded_settings(record, plan), data_of(record), scores, *costs)


def plan_of(record: Record) -> Plan:
    """The plan of the run; UsageError if another version wrote settings that this one does not have."""
    try:
        # The config holds all settings of a preset but those that are None, which the preset would bring back.
        return make_plan({name: value for name, value in record.config.items() if name != "preset"})
    except UsageError as error:
        raise UsageError(f"{record.name} was not made by this version of stcli train: {error}") from error


def recorded_settings(record: Record, plan: Plan) -> dict[str, Any]:
    """The complete settings of a run, with its preset and the device that it was trained on."""
    ran_on = record.environment or {}
    preset = record.config.get("preset", plan.preset)
    return settings_of({**plan.flat(), "preset": preset, "device": ran_on.get("device", plan.runtime.device)})


def data_of(record: Record) -> Mapping[str, Any]:
    """Sizes and fingerprints by part of the data."""
    return (record.environment or {}).get("data", {})  # type: ignore[no-any-return]


def settings_of(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that runs over seeds share: all but the seed and the number of the device."""
    return {
        name: value.partition(":")[0] if name == "device" else value
        for name, value in flat.items()
        if name != "seed" and value is not None
    }


def metrics_so_far(path: Path) -> list[Any]:
    """What `read_metrics` returns; nothing before the first epoch ends."""
    return read_metrics(path) if (path / METRICS).is_file() else []


def read_metrics(path: Path) -> list[Any]:
    """A run's metrics, a row per epoch, without a last line that is being written or was cut by a kill."""
    try:
        *lines, _ = (path / METRICS).read_text(encoding="utf-8").split("\n")
        return [from_json(line) for line in lines]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path / METRICS} is missing or damaged ({error})") from error
