"""What a check is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from stcore.audit.subject import Subject
from stcore.errors import DivergedError

_NOT_FINITE = (
    "Logits or gradients became NaN or infinite on the way: an attack ends there, and its accuracy means nothing. "
    "Find the operation that overflows or divides by zero, or evaluate in float64."
)


@dataclass(frozen=True)
class Finding:
    """What one check found.

    status: `pass`, `warn` or `skipped`.   value: what was measured.
    meaning: what that says about the accuracies, and what to do about it; of a skipped check, why it was.
    """

    check: str
    status: str
    value: str
    meaning: str


class Measured(NamedTuple):
    """What a check measured, and whether that is in order."""

    good: bool
    value: str


class Unmeasured(NamedTuple):
    """Why a check cannot be made."""

    reason: str


@dataclass(frozen=True)
class Check:
    """A question to a network, with what it means if all is well and if not."""

    name: str
    measure: Callable[[Subject], Measured | Unmeasured]
    fine: str
    doubt: str

    def make(self, subject: Subject) -> Finding:
        """The answer; that the logits stop being numbers on the way is one, too."""
        try:
            found = self.measure(subject)
        except DivergedError:
            return Finding(self.name, "warn", "NaN or +∞", _NOT_FINITE)
        if isinstance(found, Unmeasured):
            return self.skip(found.reason)
        status, meaning = ("pass", self.fine) if found.good else ("warn", self.doubt)
        return Finding(self.name, status, found.value, meaning)

    def skip(self, reason: str) -> Finding:
        """No answer."""
        return Finding(self.name, "skipped", "", reason)
