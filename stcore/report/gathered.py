"""Data of a report, read from run folders without computing anything or loading a framework."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore.base.weights_file import load_weights
from stcore.errors import UsageError
from stcore.evaluation.folder import EVALUATIONS, IDENTITY, read_identity, read_result
from stcore.evaluation.folder import RESULT as EVALUATION_RESULT
from stcore.evaluation.results import unusual
from stcore.runs.evaluation_identity import fingerprint
from stcore.runs.folder import CHECKPOINTS, METRICS, RESULT
from stcore.runs.plan import Plan
from stcore.runs.record import Record, data_of, plan_of, read_metrics, read_record


@dataclass(frozen=True)
class LaterEvaluation:
    """An evaluation that `stcli evaluate` left in the run's folder.

    identity: its settings and fingerprints.   result: None if it is unfinished.
    mismatch: `other weights` or `other test images` if it is not of the run's own, otherwise empty.
    """

    name: str
    checkpoint: str
    identity: Mapping[str, Any]
    result: Mapping[str, Any] | None
    mismatch: str

    @property
    def ways(self) -> str:
        """How a sentence says its precision and its layers under BPDA: " in tf32", or nothing for the usual."""
        precision, layers = (self.identity.get(name) for name in ("precision", "bpda"))
        return (f" in {precision}" if precision else "") + (f" with BPDA of {layers}" if layers else "")


@dataclass(frozen=True)
class GatheredRun:
    """The content of a run's folder.

    name: short, and unique within a report.   plan: None if the settings are of another version.
    weights: the number of trained values in each checkpoint's file.   rows: of metrics.jsonl.
    classes: their number, from a weights file; None if there is none.
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
        """The run's own result by checkpoint and attack; empty if it is unfinished."""
        return {} if self.result is None else self.result["checkpoints"]

    def counts(self, checkpoint: str) -> dict[str, dict[int, int]]:
        """By attack and number of images, how many are classified correctly: of all test images, or the first.

        The run's own, and those of later evaluations in fp32 in the threat model of the run's own evaluation.
        """
        own = self.checkpoints.get(checkpoint, {})
        found = {attack: {score["total"]: score["correct"]} for attack, score in own.items()}
        for one in self.evaluations:
            if one.checkpoint == checkpoint and one.result is not None and self._continues(one):
                for attack, score in one.result["accuracies"].items():
                    found.setdefault(attack, {}).setdefault(score["total"], score["correct"])
        return found

    def _continues(self, one: LaterEvaluation) -> bool:
        """Whether it is of the first of the run's images, in its threat model, in fp32 and without BPDA."""
        about, plan = one.identity, self.plan
        return (
            plan is not None
            and not one.mismatch
            and (about["epsilon"], about["norm"]) == (plan.evaluation.epsilon, plan.norm)
            and about["shard"] is None
            and not unusual(about)
            and (about["subset"] or "0").isdigit()
        )


def gather(paths: Sequence[Path]) -> tuple[GatheredRun, ...]:
    """The runs in these folders, in order. Raises UsageError for a folder without a run, or a damaged file."""
    if not paths:
        raise UsageError("runs: expected at least one run's folder, as stcli train leaves it; received none")
    names = short_names([Path(os.path.abspath(path)) for path in paths])
    return tuple(_gather(path, name) for path, name in zip(paths, names, strict=True))


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as make all names unique. Raises UsageError for a repeated path."""
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
        raise UsageError(
            f"run: expected the result that stcli train writes; {path / RESULT} lacks some of it. Train again"
        )
    prints, sizes, classes = {}, {}, None
    for checkpoint in CHECKPOINTS:
        if (file := path / f"{checkpoint}.safetensors").is_file():
            arrays, metadata = load_weights(file)
            classes = int(metadata["num_classes"]) if "num_classes" in metadata else classes
            prints[checkpoint] = fingerprint(arrays)
            sizes[checkpoint] = sum(a.size for key, a in arrays.items() if ".running_" not in key)
    rows = tuple(read_metrics(path)) if (path / METRICS).is_file() else ()
    return GatheredRun(path, name, record, plan, rows, _evaluations(path, record, prints), sizes, classes)


def _evaluations(path: Path, record: Record, prints: Mapping[str, str]) -> tuple[LaterEvaluation, ...]:
    found = []
    for file in sorted((path / EVALUATIONS).glob(f"*/*/{IDENTITY}")):
        identity, folder = read_identity(file.parent), file.parent
        result = read_result(folder) if (folder / EVALUATION_RESULT).is_file() else None
        mismatch = "" if identity["weights"] == prints.get(folder.name) else "other weights"
        mismatch = mismatch or ("" if _same_images(record, identity) else "other test images")
        found.append(LaterEvaluation(folder.parent.name, folder.name, identity, result, mismatch))
    return tuple(found)


def _same_images(record: Record, identity: Mapping[str, Any]) -> bool:
    """Whether the evaluation is of the run's test split.

    A subset is of the whole split, so it counts as the same if the run's own test split was shortened.
    """
    of_whole_split = record.config.get("test_size") is not None and identity["subset"] is not None
    return of_whole_split or bool(identity["data"] == data_of(record).get("test", {}).get("sha256"))
