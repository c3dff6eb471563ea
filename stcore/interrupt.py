"""Ctrl-C between two steps, never inside one: weights are never left half-updated."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType


class Interrupt:
    """Within this context the first Ctrl-C only makes `came()` true; a second one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self._came = False

    def came(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._came

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._came:
            raise KeyboardInterrupt
        self._came = True
        print("\nstopping after this step or evaluation; Ctrl-C again stops at once", file=sys.stderr)

    def __enter__(self) -> Interrupt:
        # Python delivers signals to the main thread only, and lets only it set handlers.
        self._active = threading.current_thread() is threading.main_thread()
        if self._active:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            signal.signal(signal.SIGINT, self._before)
