"""Commands in processes of their own: what they say is passed on line by line, and so are signals to us."""

from __future__ import annotations

import os
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType, TracebackType

from stcore.base.interrupts import handled

LAST = 8  # lines of each that are kept


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: as a shell has it, with 128 + the number of the signal that killed it."""

    code: int
    last_lines: tuple[str, ...]


class Children:
    """Within this context SIGINT and SIGTERM go to every command that runs, and no other begins any more.

    say: gets each line, with its command's mark before it. `run` may be called from several threads.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.RLock()  # a second signal may come while the first is passed on
        self._stopped = False
        self._handling = ExitStack()

    def stop(self) -> None:
        """Lets no other command begin."""
        self._stopped = True

    def run(self, mark: str, command: Sequence[str]) -> Ended | None:
        """Runs a command to its end; None where none begins any more."""
        with self._lock:
            if self._stopped:
                return None
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # open for as long as we are: see cli/child.py
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
                start_new_session=True,  # or Ctrl-C would come twice: from the terminal, and from us
            )
            self._running.add(process)
        last: deque[str] = deque(maxlen=LAST)
        try:
            with process:
                for line in process.stdout or ():
                    last.append(line.rstrip("\n"))
                    self._say(f"{mark} {last[-1]}")
        finally:
            self._running.discard(process)
        code = process.returncode
        return Ended(code if code >= 0 else 128 - code, tuple(last))

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
