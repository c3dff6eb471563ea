"""Child processes: passes their output on line by line, and passes signals to them."""

from __future__ import annotations

import os
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Self

from stcore.base.interrupts import handled

LAST = 8  # lines kept of each child


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: the shell's exit code, 128 + the signal's number after a kill."""

    code: int
    last_lines: tuple[str, ...]

    @classmethod
    def of(cls, process: subprocess.Popen[str], last_lines: Iterable[str]) -> Self:
        """How a process ended that printed these lines at last."""
        code = process.returncode
        return cls(code if code >= 0 else 128 - code, tuple(last_lines))


class Children:
    """Within this context SIGINT and SIGTERM are sent to every running command, and no other is started.

    say: gets each line, prefixed by its command's mark. `run` may be called from several threads.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.RLock()  # a second signal may come during the first
        self._stopped = False
        self._handling = ExitStack()

    def stop(self) -> None:
        """Starts no other command."""
        self._stopped = True

    @property
    def stopped(self) -> bool:
        """Whether no other command may start."""
        return self._stopped

    def run(self, mark: str, command: Sequence[str], heed: Callable[[], bool] = lambda: False) -> Ended | None:
        """Runs a command to its end; None if no other may start.

        heed: called after each line of the command, which is sent SIGTERM when it first returns True.
        """
        with self._lock:
            if self._stopped:
                return None
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # open until this process ends: see cli/child.py
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
                start_new_session=True,  # else Ctrl-C comes twice: from the terminal and from here
            )
            self._running.add(process)
        last: deque[str] = deque(maxlen=LAST)
        heeding = True
        try:
            with process:
                for line in process.stdout or ():
                    last.append(line.rstrip("\n"))
                    self._say(f"{mark} {last[-1]}")
                    if heeding and heed():
                        heeding = False
                        process.terminate()
        finally:
            self._running.discard(process)
        return Ended.of(process, last)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        with self._lock:
            self._stopped = True
            for process in tuple(self._running):
                process.send_signal(number)

    def __enter__(self) -> Children:
        self._handling.enter_context(handled(self._pass_on))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handling.close()
