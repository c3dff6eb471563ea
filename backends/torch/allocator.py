"""CPU allocator settings: freed memory stays with the process."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as <malloc.h> numbers them
SIZES = (1 << 30, 32 << 20)
"""mmap thresholds in bytes, tried in order: older versions of glibc reject anything above the second."""
CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for the next tensor; returns whether it accepted the settings.

    By default glibc returns large blocks to the system, which zeroes each page when it is touched again: a quarter
    of a step at batch 128 (docs/results/allocator.md). Results do not change; the process keeps its peak memory.
    Does nothing if the user's environment sets one of `CHOSEN`, or without glibc.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in CHOSEN):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    large = any(libc.mallopt(MMAP_THRESHOLD, size) for size in SIZES)
    return large and bool(libc.mallopt(TRIM_THRESHOLD, -1))
