"""Stopping between two steps, never inside one: weights are never left half-updated."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from types import FrameType, TracebackType

from stcore.signals import handled


class Interrupt:
    """Within this context the first Ctrl-C, or SIGTERM, only makes `came()` true; a second one raises
    KeyboardInterrupt.

    until: the end of the time there is, by `time.monotonic`; from then on `came()` is true, too.
    """

    def __init__(self, until: float | None = None) -> None:
        self._came = False
        self._until = until
        self._handling = ExitStack()

    def came(self) -> bool:
        """Whether it is time to stop."""
        if not self._came and self._until is not None and time.monotonic() >= self._until:
            self._came = True
            print("\nstopping: the time is over", file=sys.stderr)
        return self._came

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._came:
            raise KeyboardInterrupt
        self._came = True
        print("\nstopping after this step or evaluation; Ctrl-C again stops at once", file=sys.stderr)

    def __enter__(self) -> Interrupt:
        self._handling.enter_context(handled(self._note))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handling.close()
