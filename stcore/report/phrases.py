"""Phrases and number formats that several parts of a report share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stcore.evaluation.accuracy import Accuracy
from stcore.report.blocks import Cell
from stcore.results import names


def accuracy(score: Mapping[str, Any]) -> Cell:
    """An accuracy in percent with its interval."""
    low, high = score["interval_95"]
    return Cell(percent(score["accuracy"]), f"[{percent(low)}, {percent(high)}]")


def images_of(score: Mapping[str, Any]) -> int:
    """The number of images of an accuracy, whose counts may be of several versions of each."""
    of = Accuracy.of_json(score)
    return of.total // of.repeats


def percent(share: float) -> str:
    """A share in [0, 1] in percent, with two decimals."""
    return f"{100 * share:.2f}"


def radius(value: float, norm: str = "linf") -> str:
    """ε = 8/255 in l∞, or ε = 0.5 in l2."""
    return names.ball(value, norm).replace(" ", "\u00a0")  # no line break within it


def value(setting: Any) -> str:
    """The text of a setting: yes, no, none, a number, a word, or a list of them."""
    if isinstance(setting, (tuple, list)):
        return ", ".join(map(value, setting)) or "none"
    if isinstance(setting, bool) or setting is None:
        return {True: "yes", False: "no", None: "none"}[setting]
    return f"{setting:.6g}" if isinstance(setting, float) else str(setting)


def listed(words: Sequence[str]) -> str:
    """one, two and three."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def duration(seconds: float) -> str:
    """12 s, 3.5 min or 2.1 h."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def plural(count: int, noun: str) -> str:
    """1 epoch, 2 epochs, 3 classes."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending * (count != 1)}"
