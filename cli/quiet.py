"""Loads a framework without its log: TensorFlow writes to file descriptor 2 before logging can be configured."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stcore.core.dispatch import load_backend


def load_quietly(name: str) -> Any:
    """`stcore.core.dispatch.load_backend` with a silent stderr; errors are raised as usual."""
    # TensorFlow takes several networks in one process for one that is retraced, and warns.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with quietly():
        return load_backend(name)


@contextmanager
def quietly() -> Iterator[None]:
    """A silent stderr; errors are raised as usual."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
