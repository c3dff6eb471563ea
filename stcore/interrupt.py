"""Stopping between two steps, never inside one: weights are never left half-updated."""

from __future__ import annotations

import signal
import sys
import threading
import time
from types import FrameType, TracebackType


class Interrupt:
    """Within this context the first Ctrl-C, or SIGTERM, only makes `came()` true; a second one raises
    KeyboardInterrupt. seconds: the time there is, after whose end `came()` is true, too."""

    def __init__(self, seconds: float | None = None) -> None:
        self._came = False
        self._end = None if seconds is None else time.monotonic() + seconds

    def came(self) -> bool:
        """Whether it is time to stop."""
        if not self._came and self._end is not None and time.monotonic() >= self._end:
            self._came = True
            print("\nstopping: the time is over", file=sys.stderr)
        return self._came

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._came:
            raise KeyboardInterrupt
        self._came = True
        print("\nstopping after this step or evaluation; Ctrl-C again stops at once", file=sys.stderr)

    def __enter__(self) -> Interrupt:
        # Python delivers signals to the main thread only, and lets only it set handlers.
        main = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if main else ()
        self._before = {number: signal.signal(number, self._note) for number in signals}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
