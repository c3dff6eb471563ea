"""What a preset is: the settings of one row of the paper, where each comes from, and what the row says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

ATTACKS = ("natural", "fgsm", "pgd20", "pgd100", "cw100", "autoattack", "pgd_trades", "pgd_rst")
"""The columns of the paper's tables: clean, FGSM, PGD-20, PGD-100, C&W∞, AA, PGD_TRADES, PGD_RST."""

SOURCES = ("paper §", "released code (", "our choice: unspecified (")
"""How the source of a setting begins."""


class Setting(NamedTuple):
    """A value, and where it comes from: see `SOURCES`."""

    value: Any
    source: str


Recipe: TypeAlias = dict[str, Setting]
"""Settings by name. Where recipes are joined, the later one's value comes with its source."""


class Expected(NamedTuple):
    """An accuracy as printed, in percent: a mean and half its 95 % interval over seven runs, if legible."""

    mean: float
    half_width: float | None = None


@dataclass(frozen=True)
class Preset:
    """One row.

    settings: flat, as `stcore.runs.plan.make_plan` takes them, without backend, seed and output folder.
    sources: for each setting where its value comes from (see `SOURCES`).
    expected: by attack, what the row's columns say; None where the number is not to be had from the paper's
        text: lost in its scan, or only drawn in a figure (`note` says which). Never guessed.
    uncertain: the attacks whose figures hold digits reconstructed from conflicting readings of the scan.
    checkpoint: which of a run's the row is of, `best` (by `select_by`) or `last`.
    trained_by_authors: False for the rows of Table 4 that the paper quotes from others.
    measured: our own figures; None: not run by us.
    """

    name: str
    settings: Mapping[str, Any]
    sources: Mapping[str, str]
    expected: Mapping[str, Expected | None]
    uncertain: tuple[str, ...] = ()
    note: str = ""
    checkpoint: str = "best"
    trained_by_authors: bool = True
    measured: Mapping[str, Expected] | None = None

    def as_json(self) -> dict[str, Any]:
        """The preset as what JSON has types for; numbers that are not to be had are null."""
        return {
            "name": self.name,
            "settings": {name: plain(value) for name, value in self.settings.items()},
            "sources": dict(self.sources),
            "expected": accuracies_as_json(self.expected),
            "uncertain": list(self.uncertain),
            "note": self.note,
            "checkpoint": self.checkpoint,
            "trained_by_authors": self.trained_by_authors,
            "measured": None if self.measured is None else accuracies_as_json(self.measured),
        }


def accuracies_as_json(accuracies: Mapping[str, Expected | None]) -> dict[str, dict[str, float | None] | None]:
    """Accuracies in percent by attack."""
    return {attack: None if value is None else value._asdict() for attack, value in accuracies.items()}


def plain(value: Any) -> Any:
    """A setting with lists for tuples."""
    return list(value) if isinstance(value, tuple) else value
