"""Stopping between two steps, never inside one: weights are never left half-updated."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType, TracebackType

from stcore.base.ranks import Alone, Ranks


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Both go to `handler`. Without effect on another thread than the main one: Python delivers signals to that
    one only, and lets only it set handlers.
    """
    main = threading.current_thread() is threading.main_thread()
    signals = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


class Interrupt:
    """Within this context the first Ctrl-C, or SIGTERM, only makes `came()` true; a second one raises
    KeyboardInterrupt.

    until: the end of the time there is, by `time.monotonic`; from then on `came()` is true, too.
    ranks: of several, the first alone says so; and a second signal within a second is the first once more, which
    came from the terminal and from the launcher.
    """

    def __init__(self, until: float | None = None, ranks: Ranks = Alone()) -> None:
        self._came = False
        self._until = until
        self._says = ranks.rank == 0
        self._patience = 1.0 if ranks.count > 1 else 0.0
        self._at = 0.0
        self._handling = ExitStack()

    def came(self) -> bool:
        """Whether it is time to stop."""
        if not self._came and self._until is not None and time.monotonic() >= self._until:
            self._came = True
            self._say("stopping: the time is over")
        return self._came

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._came:
            if time.monotonic() - self._at >= self._patience:
                raise KeyboardInterrupt
            return
        self._came, self._at = True, time.monotonic()
        self._say("stopping after this step or evaluation; Ctrl-C again stops at once")

    def _say(self, what: str) -> None:
        if self._says:
            print(f"\n{what}", file=sys.stderr)

    def __enter__(self) -> Interrupt:
        self._handling.enter_context(handled(self._note))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handling.close()
