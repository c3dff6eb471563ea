"""Checks and their findings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from stcore.audit.subject import Subject
from stcore.errors import DivergedError

_NOT_FINITE = (
    "Logits or gradients became NaN or infinite: an attack ends there, and its accuracy means nothing. "
    "Find the operation that overflows or divides by zero, or evaluate in float64."
)


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    check: its name.   status: `pass`, `warn` or `skipped`.   value: the measurement, as text.
    meaning: its consequence for the accuracies and what to do; for a skipped check, the reason.
    """

    check: str
    status: str
    value: str
    meaning: str


class Measured(NamedTuple):
    """A measurement, and whether it is in order."""

    good: bool
    value: str


class Unmeasured(NamedTuple):
    """The reason why a check cannot run."""

    reason: str


@dataclass(frozen=True)
class Check:
    """A check of a network, with the meaning of success (`fine`) and of failure (`doubt`).

    quick: whether it takes a few passes and no attack.
    """

    name: str
    measure: Callable[[Subject], Measured | Unmeasured]
    fine: str
    doubt: str
    quick: bool = False

    def run(self, subject: Subject) -> Finding:
        """Runs the check; logits that become non-finite are a warning too."""
        try:
            result = self.measure(subject)
        except DivergedError:
            return Finding(self.name, "warn", "NaN or +∞", _NOT_FINITE)
        if isinstance(result, Unmeasured):
            return self.skip(result.reason)
        status, meaning = ("pass", self.fine) if result.good else ("warn", self.doubt)
        return Finding(self.name, status, result.value, meaning)

    def skip(self, reason: str) -> Finding:
        """A finding without a measurement."""
        return Finding(self.name, "skipped", "", reason)
