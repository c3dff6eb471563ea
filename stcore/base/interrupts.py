"""Interrupts: Ctrl-C, SIGTERM and time limits, acted on between two steps.

A step is never cut short, so weights are never left half-updated.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType, TracebackType

from stcore.base.ranks import Alone, Ranks


class Interrupt:
    """A request to stop, made by the first Ctrl-C or SIGTERM in this context, or by a time limit.

    A second signal raises KeyboardInterrupt.
    until: the time limit, by `time.monotonic`; None for no limit.
    ranks: of several ranks, only the first prints. A second signal within a second counts as the first: the
        terminal and the launcher both send one.
    """

    def __init__(self, until: float | None = None, ranks: Ranks = Alone()) -> None:
        self._came = False
        self._until = until
        self._prints = ranks.rank == 0
        self._repeat_window = 1.0 if ranks.count > 1 else 0.0
        self._came_at = 0.0
        self._handling = ExitStack()

    def came(self) -> bool:
        """Returns whether to stop now."""
        if not self._came and self._until is not None and time.monotonic() >= self._until:
            self._came = True
            self._print("stopping: the time is over")
        return self._came

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._came:
            if time.monotonic() - self._came_at >= self._repeat_window:
                raise KeyboardInterrupt
            return
        self._came, self._came_at = True, time.monotonic()
        self._print("stopping after this step or evaluation; Ctrl-C again stops at once")

    def _print(self, message: str) -> None:
        if self._prints:
            print(f"\n{message}", file=sys.stderr)

    def __enter__(self) -> Interrupt:
        self._handling.enter_context(handled(self._on_signal))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handling.close()


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Routes SIGINT and SIGTERM to `handler` during the block, even if `postponed`, then restores what was before.

    No effect outside the main thread, the only one that may set signal handlers.
    """
    main = threading.current_thread() is threading.main_thread()
    signals = (signal.SIGINT, signal.SIGTERM) if main else ()
    former = {number: signal.signal(number, handler) for number in signals}
    try:
        with _masked("SIG_UNBLOCK", *signals):
            yield
    finally:
        for number, former_handler in former.items():
            signal.signal(number, former_handler)


def postponed() -> AbstractContextManager[None]:
    """Within this context SIGTERM waits for the next `handled` block, or for the end of the context."""
    return _masked("SIG_BLOCK", signal.SIGTERM)


@contextmanager
def _masked(how: str, *signals: int) -> Iterator[None]:
    """This thread's signal mask, changed during the block; no effect on Windows, which has none."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    former = signal.pthread_sigmask(getattr(signal, how), signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
