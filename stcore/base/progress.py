"""Telling how long work goes on, without knowing to whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Who is told how the work goes on."""

    def begin(self, label: str, total: int, unit: str = "images") -> None:
        """A stretch of work of `total` units starts."""

    def advance(self, amount: int, note: str = "") -> None:
        """So many units more are done; the note says how things stand."""

    def end(self) -> None:
        """The stretch is over."""


class Silent:
    """Tells nobody."""

    def begin(self, label: str, total: int, unit: str = "images") -> None:
        """Nothing to say."""

    def advance(self, amount: int, note: str = "") -> None:
        """Nothing to say."""

    def end(self) -> None:
        """Nothing to say."""


@contextmanager
def stretch(progress: Progress, label: str, total: int, unit: str = "images") -> Iterator[None]:
    """A stretch of work that is over whatever happens: no bar stays on the terminal."""
    progress.begin(label, total, unit)
    try:
        yield
    finally:
        progress.end()
