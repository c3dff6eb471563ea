"""Progress reporting, independent of the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """A receiver of progress reports."""

    def begin(self, label: str, total: int, unit: str = "images") -> None:
        """Reports the start of a task of `total` units."""

    def advance(self, amount: int, note: str = "") -> None:
        """Reports `amount` more units as done; `note` describes the current state, such as an accuracy."""

    def end(self) -> None:
        """Reports the end of the task."""


class Silent:
    """Reports nothing."""

    def begin(self, label: str, total: int, unit: str = "images") -> None:
        """Ignored."""

    def advance(self, amount: int, note: str = "") -> None:
        """Ignored."""

    def end(self) -> None:
        """Ignored."""


@contextmanager
def stretch(progress: Progress, label: str, total: int, unit: str = "images") -> Iterator[None]:
    """Reports a task's start and, also after an exception, its end: no bar stays on the terminal."""
    progress.begin(label, total, unit)
    try:
        yield
    finally:
        progress.end()
