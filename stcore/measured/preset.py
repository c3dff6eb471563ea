"""Presets that were run, a JSON file each, and the names that they are found by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore.base.files import read_json
from stcore.errors import DataError
from stcore.evaluation.accuracy import Accuracy, over_runs

FOLDER = Path(__file__).parent
KIND = "fast"
"""The first word of every name, as in fast/digits: the best accuracy known within a time."""
NOT_SETTINGS = (
    *("preset", "seed", "backend", "device", "threads", "replicas", "eval_batch_size"),
    *("resident", "decode_workers", "image_column", "label_column", "attacks"),
)
"""Settings of a run that its preset leaves out: they are the machine's, the seed, the place of the data, or the
attacks that follow the training."""


@dataclass(frozen=True)
class Measured:
    """The settings of runs that differ in their seed alone, and what was measured of them.

    settings: all, as `stcore.runs.plan.make_plan` takes them, but those of `NOT_SETTINGS`.
    checkpoint: the one that was evaluated.   seeds: of the runs, in the order of all that is given for each.
    accuracies: by attack {"correct": for each run, "total"}; fewer images than the test split has are its first.
    seconds: of each run's training alone, without evaluations.
    machine: processor, cores, threads, versions.   data: by part {"images", "sha256"}.
    commands: those that repeat the runs and their evaluations.
    """

    name: str
    settings: Mapping[str, Any]
    checkpoint: str
    seeds: tuple[int, ...]
    accuracies: Mapping[str, Mapping[str, Any]]
    seconds: tuple[float, ...]
    machine: Mapping[str, Any]
    data: Mapping[str, Mapping[str, Any]]
    commands: tuple[str, ...]

    @property
    def minutes(self) -> float:
        """The mean over the runs."""
        return sum(self.seconds) / len(self.seconds) / 60

    def runs(self, attack: str) -> tuple[Accuracy, ...]:
        """The accuracy of each run under an attack."""
        score = self.accuracies[attack]
        return tuple(Accuracy(correct, score["total"]) for correct in score["correct"])

    def as_json(self) -> dict[str, Any]:
        """The preset as plain JSON values; each accuracy also as a mean with its 95 % interval, in percent."""
        figures = {attack: over_runs(self.runs(attack)) for attack in self.accuracies}
        accuracies = {
            attack: {**score, "mean": figures[attack][0], "interval_95": list(figures[attack][1:])}
            for attack, score in self.accuracies.items()
        }
        return {**dataclasses.asdict(self), "accuracies": accuracies}


def names() -> tuple[str, ...]:
    """The presets' names, sorted."""
    return tuple(sorted(path.stem.replace("-", "/", 1) for path in FOLDER.glob("*.json")))


def file_of(name: str) -> Path:
    """The file of a preset: fast-digits.json of fast/digits."""
    return FOLDER / f"{name.replace('/', '-', 1)}.json"


def read(name: str) -> Measured:
    """The preset of a name among `names`. Raises DataError if its file is damaged."""
    path = file_of(name)
    content = read_json(path)
    if content.keys() != {field.name for field in dataclasses.fields(Measured)}:
        raise DataError(f"{path} is damaged: its entries are not those of a preset. Install stcore again")
    content["settings"] = {key: _tuple(value) for key, value in content["settings"].items()}
    return Measured(**{key: _tuple(value) for key, value in content.items()})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
