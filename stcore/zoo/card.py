"""Cards of the networks that come with the package, and the names that they are found by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stcore.base.checks import did_you_mean
from stcore.base.files import read_arrays, read_json
from stcore.errors import DataError, UsageError
from stcore.protocols import Array

FOLDER = Path(__file__).parent
PREFIX = "zoo:"


@dataclass(frozen=True)
class Card:
    """How a network was made, and what was measured.

    config: the settings of its run, as in config.toml.   checkpoint: of the run.
    commands: those that repeat the run and its evaluation.   versions: of the packages and the platform.
    parameters: the number of trained values.   norm, epsilon: the threat model, for pixels in [0, 1].
    accuracies: by attack {"correct", "total"}; fewer images than the test split has are its first.
    data: the fingerprint of the test split.   weights: that of the weights.   records: SHA-256 of NAME.npz.
    licence: of the weights.   data_note: where the training data come from, and their licence.
    """

    name: str
    config: Mapping[str, Any]
    checkpoint: str
    commands: tuple[str, ...]
    versions: Mapping[str, str]
    parameters: int
    norm: str
    epsilon: float
    accuracies: Mapping[str, Mapping[str, int]]
    attacks: Mapping[str, str]
    data: str
    weights: str
    records: str
    licence: str
    data_note: str

    @property
    def files(self) -> dict[str, Path]:
        """The network's files by suffix."""
        return {suffix: FOLDER / f"{self.name}.{suffix}" for suffix in ("safetensors", "json", "npz")}

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(path.stat().st_size for path in self.files.values())

    def read_records(self) -> dict[str, Array]:
        """The records of the evaluation, as `stcore.evaluation.results.record_arrays` describes them."""
        return read_arrays(self.files["npz"])


def names() -> tuple[str, ...]:
    """The networks' names, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def find(place: str | Path) -> Card | None:
    """The card of the network that `place` names as zoo:NAME; None for any other place. Raises as `read_card`."""
    text = str(place)
    return read_card(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else None


def read_card(name: str) -> Card:
    """The card of a network. Raises UsageError for an unknown name, DataError for a damaged card."""
    if name not in names():
        hint = did_you_mean(name, names())
        raise UsageError(f"zoo: expected a network among {', '.join(names())}; received {name!r}{hint}")
    path = FOLDER / f"{name}.json"
    content = read_json(path)
    if content.keys() != {field.name for field in dataclasses.fields(Card)}:
        raise DataError(f"{path} is damaged: its entries are not those of a card. Install stcore again")
    return Card(**{**content, "commands": tuple(content["commands"])})


def weights_path(place: str | Path) -> Path:
    """The weights file that `place` names: a path, or zoo:NAME. Raises as `find` does."""
    card = find(place)
    return Path(place) if card is None else card.files["safetensors"]
