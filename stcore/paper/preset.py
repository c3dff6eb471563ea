"""The preset type: the settings of one row of the paper, their sources, and the row's accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

COLUMNS = ("natural", "fgsm", "pgd20", "pgd100", "cw100", "autoattack", "pgd_trades", "pgd_rst")
"""The columns of the paper's tables: clean, FGSM, PGD-20, PGD-100, C&W∞, AA, PGD_TRADES, PGD_RST."""

SOURCES = ("paper §", "released code (", "our choice: unspecified (")
"""The beginnings of a setting's source."""


class Setting(NamedTuple):
    """A value and its source, which begins with one of `SOURCES`."""

    value: Any
    source: str


Recipe: TypeAlias = dict[str, Setting]
"""Settings by name. Merging recipes keeps the later one's value together with its source."""


class Expected(NamedTuple):
    """An accuracy as printed, in percent: a mean and half its 95 % interval over seven runs, if legible."""

    mean: float
    half_width: float | None = None


@dataclass(frozen=True)
class Preset:
    """The settings and the printed accuracies of one row of the paper.

    settings: flat, as `stcore.runs.plan.make_plan` takes them, without backend, seed and output folder.
    sources: the source of each setting (see `SOURCES`).
    expected: the row's accuracies by attack. None if the text gives no number: lost in the scan, or only drawn in
        a figure (`note` says which). Numbers are never guessed.
    uncertain: the attacks whose numbers contain digits reconstructed from conflicting readings of the scan.
    checkpoint: the checkpoint that the row reports, `best` (by `select_by`) or `last`.
    trained_by_authors: False for the rows of Table 4 that the paper quotes from other work.
    measured: our own accuracies; None if we have not run it.
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
        """The preset as plain JSON values; unknown numbers are null."""
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
    """The setting with tuples replaced by lists."""
    return list(value) if isinstance(value, tuple) else value
