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
