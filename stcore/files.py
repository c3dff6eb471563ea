"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from stcore.errors import UsageError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write beside `path`, moved there when all went well; else none is left, and what was there stays.

    UsageError where it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writing(path):
            with beside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps the folder for this process, until the end or the process' own; UsageError where another has it.

    An advisory lock on the folder itself, which leaves no file. Where a system or a file system has none, it keeps
    nobody out.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"run: another process is training in {folder}, and two would write over each other. Wait until "
                "it ends, or stop it"
            ) from None
        except OSError:  # some network file systems
            pass
        yield
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Removes what `replacing` was writing there when its process was killed; nobody else may be writing."""
    for left in folder.glob(".*.part"):
        left.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """UsageError, with the path, for what the system says against writing there."""
    try:
        yield
    except OSError as error:  # of a full disk the error itself knows no path
        reason = error.strerror or error
        raise UsageError(f"{path} cannot be written ({reason}). Free space or choose another place") from error
