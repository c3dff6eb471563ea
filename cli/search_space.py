"""The space of `stcli sweep --optimize`: settings that have a range, or a few values."""

from __future__ import annotations

import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stcore.base import checks
from stcore.cli.grid import Point, points
from stcore.cli.options import TrainOptions
from stcore.cli.own_settings import with_settings
from stcore.cli.parsing import Int, MaybeInt
from stcore.errors import UsageError

DIGITS = 4
"""Significant digits of a number that the search draws: a run's name and its command say it whole."""


@dataclass(frozen=True)
class Range:
    """The numbers from low to high, both included.   log: drawn by their logarithm.   whole: of whole numbers."""

    low: float
    high: float
    log: bool
    whole: bool

    def suggest(self, trial: Any, name: str) -> str:
        """The word of the value that the trial proposes."""
        if self.whole:
            return str(trial.suggest_int(name, int(self.low), int(self.high), log=self.log))
        return f"{trial.suggest_float(name, self.low, self.high, log=self.log):.{DIGITS}g}"


@dataclass(frozen=True)
class Values:
    """A few words."""

    words: tuple[str, ...]

    def suggest(self, trial: Any, name: str) -> str:
        """The word that the trial proposes."""
        return str(trial.suggest_categorical(name, self.words))


Space: typing.TypeAlias = dict[str, Range | Values]


def space_of(vary: Sequence[str], method: str | None = None) -> Space:
    """The space of words `name=LOW..HIGH`, `name=LOW..HIGH:log` and `name=value,value`.

    method: whose own settings may be among them.
    Raises UsageError for an unknown setting, one without a value or given twice, or a range that is none.
    """
    space: Space = {}
    for word in vary:
        name, _, values = word.partition("=")
        name = name.strip().replace("-", "_")
        if ".." in values:
            points([f"{name}=0"], None, method)  # checks the name
            ends = _range(name, values, _type_of(name, method))
            found: Range | Values = ends
        else:
            found = Values(tuple(str(point[name]) for point in points([word], None, method)))
        if name in space:
            raise UsageError(f"vary: expected {name} once; received it twice. Put all its values into one list")
        space[name] = found
    if not space:
        raise UsageError(
            "vary: expected settings to search, such as --vary learning_rate=0.01..0.3:log; received none"
        )
    return space


def suggested(space: Space, trial: Any) -> Point:
    """The point that a trial proposes."""
    return {name: where.suggest(trial, name) for name, where in space.items()}


def _type_of(name: str, method: str | None) -> Any:
    return typing.get_type_hints(with_settings(TrainOptions, method), include_extras=True)[name]


def _range(name: str, text: str, kind: Any) -> Range:
    form = f"vary: expected a range such as {name}=0.01..0.3 or {name}=0.01..0.3:log; received {name}={text}"
    match = re.fullmatch(r"\s*(.+?)\.\.(.+?)(:log)?\s*", text)
    if match is None:
        raise UsageError(form)
    try:
        low, high = checks.fraction(match[1]), checks.fraction(match[2])
    except ValueError as error:
        raise UsageError(form) from error
    whole = kind in (Int, MaybeInt)
    if not low < high or (match[3] and low <= 0):
        raise UsageError(f"{form}. The ends rise, and above 0 with :log")
    if whole and not (low.is_integer() and high.is_integer()):
        raise UsageError(f"{form}. {name} is a whole number, so its ends are")
    return Range(low, high, bool(match[3]), whole)
