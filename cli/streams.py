"""Output streams that end no command: their reader may go away, they may be closed, or know no Greek."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

GONE = (errno.EPIPE, errno.EBADF)
"""What a stream answers that nobody reads, or that was closed before the command began."""


class Lasting:
    """A text stream whose writes never raise; once it cannot be written, what follows is dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost = ""
        """Why output was lost, unless its reader just went away."""

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            self._attempt(self._stream.write, text.encode(encoding, "replace").decode(encoding))
        except (OSError, ValueError) as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, act: Any, *args: Any) -> None:
        try:
            act(*args)
        except (OSError, ValueError) as error:
            self._drop(error)

    def _drop(self, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno not in GONE:
            self.lost = error.strerror or str(error)
        # Python flushes its own stream once more at exit, into the same file descriptor.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        self._stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (lives as long as the process)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting() -> Iterator[Lasting]:
    """Context in which standard output and error are `Lasting`; gives the former.

    A closed file descriptor 0, 1 or 2 is opened on nothing first, or the next file that is opened would take its
    place, and what is printed would go into that file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    before = sys.stdout, sys.stderr
    streams = [Lasting(stream if stream is not None else open(os.devnull, "w")) for stream in before]  # noqa: SIM115
    try:
        sys.stdout, sys.stderr = streams
        yield streams[0]
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before
