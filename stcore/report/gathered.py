"""Data of a report, read from run folders and cards of the zoo without computing or loading a framework."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stcore import zoo
from stcore.autoattack.cascade import under
from stcore.autoattack.records import Records
from stcore.base.weights_file import load_weights
from stcore.errors import UsageError
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.folder import EVALUATIONS, IDENTITY, read_identity, read_result
from stcore.evaluation.folder import RESULT as EVALUATION_RESULT
from stcore.evaluation.results import unusual
from stcore.runs.evaluation_identity import fingerprint
from stcore.runs.folder import CHECKPOINTS, METRICS, RESULT
from stcore.runs.plan import Plan
from stcore.runs.record import Record, data_of, plan_of, read_metrics, read_record


@dataclass(frozen=True)
class LaterEvaluation:
    """An evaluation that `stcli evaluate` left in the run's folder, or in the working folder for one of the zoo.

    path: its folder.   identity: its settings and fingerprints.   result: None if it is unfinished.
    mismatch: `other weights` or `other test images` if it is not of the run's own, otherwise empty.
    """

    path: Path
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
    """The content of a run's folder, or what the card of a network of the zoo says of the run that made it.

    path: the folder, or zoo:NAME.   name: short, and unique within a report.
    plan: None if the settings are of another version.   rows: of metrics.jsonl.
    files: the weights files by checkpoint.   weights: the number of trained values in each.
    classes: their number, from a weights file; None if there is none.
    checkpoint: the one that the report is about.   card: None for a run's folder.
    """

    path: Path
    name: str
    record: Record
    plan: Plan | None
    rows: tuple[Mapping[str, Any], ...]
    evaluations: tuple[LaterEvaluation, ...]
    files: Mapping[str, Path]
    weights: Mapping[str, int]
    classes: int | None
    checkpoint: str = "best"
    card: zoo.Card | None = None

    @property
    def file_name(self) -> str:
        """Its name as a part of a file's name, and on the hub."""
        return self.name.removeprefix(zoo.PREFIX).replace("/", "-")

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
    """The runs in these folders, or of the zoo's networks where a path is zoo:NAME, in order.

    Raises UsageError for a folder without a run, an unknown name, or a damaged file.
    """
    if not paths:
        raise UsageError(
            "runs: expected at least one run's folder, as stcli train leaves it, or zoo:NAME; received none"
        )
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
    if (card := zoo.find(path)) is not None:
        return of_card(card, path, name)
    record = read_record(path)
    plan = None
    with contextlib.suppress(UsageError):
        plan = plan_of(record)
    if record.result is not None and not {"checkpoints", "images", "epsilon"} <= set(record.result):
        raise UsageError(
            f"run: expected the result that stcli train writes; {path / RESULT} lacks some of it. Train again"
        )
    files = {name: path / f"{name}.safetensors" for name in CHECKPOINTS}
    files = {name: file for name, file in files.items() if file.is_file()}
    prints, sizes, classes = {}, {}, None
    for checkpoint, file in files.items():
        arrays, metadata = load_weights(file)
        classes = int(metadata["num_classes"]) if "num_classes" in metadata else classes
        prints[checkpoint] = fingerprint(arrays)
        sizes[checkpoint] = sum(a.size for key, a in arrays.items() if ".running_" not in key)
    rows = tuple(read_metrics(path)) if (path / METRICS).is_file() else ()
    return GatheredRun(path, name, record, plan, rows, _evaluations(path, record, prints), files, sizes, classes)


def of_card(card: zoo.Card, path: Path, name: str) -> GatheredRun:
    """What a card of the zoo says of the run that made a network, and its evaluations in the working folder."""
    scores = {attack: Accuracy.of_json(score).as_json() for attack, score in card.accuracies.items()}
    images = max(score["total"] for score in scores.values())
    count = {} if card.config.get("test_size") else {"images": images}  # unknown if the run shortened the split
    result = {
        "images": images,
        "epsilon": card.epsilon,
        "selected_on": f"{card.config['select_by']}@{card.config['select']}",
        "checkpoints": {card.checkpoint: scores},
        "cascades": _stages(card),
    }
    environment = {**card.versions, "data": {"test": {**count, "sha256": card.data}}}
    record = Record(str(path), card.config, environment, result)
    weights = card.files["safetensors"]
    _, metadata = load_weights(weights)
    return GatheredRun(
        path,
        name,
        record,
        plan_of(record),
        (),
        _of_network(card),
        {card.checkpoint: weights},
        {card.checkpoint: card.parameters},
        int(metadata["num_classes"]),
        card.checkpoint,
        card,
    )


def _stages(card: zoo.Card) -> dict[str, list[dict[str, Any]]]:
    """By cascade, how many images are correct after each of its stages, from the records, which know no costs."""
    arrays = card.read_records()
    found = {}
    for attack in card.attacks:
        if (parts := under(attack, arrays)).get("attacks") is not None:
            records, total = Records.of(parts), len(parts["label"])
            fooled = [np.isin(records.attack, np.arange(stage + 1)) for stage in range(len(parts["attacks"]))]
            robust = [int(((records.natural == records.label) & ~one).sum()) for one in fooled]
            found[attack] = [
                {"attack": str(name), "robust": left, "total": total}
                for name, left in zip(parts["attacks"], robust, strict=True)
            ]
    return found


def _evaluations(path: Path, record: Record, prints: Mapping[str, str]) -> tuple[LaterEvaluation, ...]:
    found = []
    for folder, identity in _identities(path / EVALUATIONS):
        same = identity["weights"] == prints.get(folder.name), _same_images(record, identity)
        found.append(_evaluation(folder, folder.name, identity, *same))
    return tuple(found)


def _of_network(card: zoo.Card) -> tuple[LaterEvaluation, ...]:
    """The evaluations in the working folder that are of a network's weights, or of others under its name."""
    found = []
    for folder, identity in _identities(Path(EVALUATIONS)):
        same = identity["weights"] == card.weights, _same_images_as(card, identity)
        if same[0] or folder.name == card.name:
            found.append(_evaluation(folder, card.checkpoint, identity, *same))
    return tuple(found)


def _identities(evaluations: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The folder of each evaluation, and what it is of."""
    for file in sorted(evaluations.glob(f"*/*/{IDENTITY}")):
        yield file.parent, read_identity(file.parent)


def _evaluation(
    folder: Path, checkpoint: str, identity: Mapping[str, Any], same_weights: bool, same_images: bool
) -> LaterEvaluation:
    mismatch = "other weights" if not same_weights else "" if same_images else "other test images"
    result = read_result(folder) if (folder / EVALUATION_RESULT).is_file() else None
    return LaterEvaluation(folder, folder.parent.name, checkpoint, identity, result, mismatch)


def _same_images(record: Record, identity: Mapping[str, Any]) -> bool:
    """Whether the evaluation is of the run's test split.

    A subset is of the whole split, so it counts as the same if the run's own test split was shortened.
    """
    of_whole_split = record.config.get("test_size") is not None and identity["subset"] is not None
    return of_whole_split or bool(identity["data"] == data_of(record).get("test", {}).get("sha256"))


def _same_images_as(card: zoo.Card, identity: Mapping[str, Any]) -> bool:
    """Whether the evaluation is of the card's test split, or of the part to which its run shortened it.

    The card has the fingerprint of the whole split; of that part, the published data set's name stands for it.
    """
    shortened = card.config.get("test_size")
    of_part = shortened is not None and identity["subset"] is None
    return bool(identity["data"] == card.data) or (of_part and identity["dataset"] == card.config["dataset"])
