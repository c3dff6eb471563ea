"""Loads a framework without its chatter: TensorFlow logs to file descriptor 2 before it can be told not to."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stcore.core.dispatch import load_backend


def load_quietly(name: str) -> Any:
    """`stcore.core.dispatch.load_backend`; what goes wrong is raised, not logged."""
    # Several networks in one process look to TensorFlow like one that is traced again and again.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with _silent_stderr():
        return load_backend(name)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
