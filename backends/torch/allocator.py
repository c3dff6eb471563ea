"""What becomes of memory that PyTorch frees on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as <malloc.h> numbers them
SIZES = (1 << 30, 32 << 20)
"""Blocks up to these come from memory that is kept; older versions of glibc take nothing above the second."""
CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Has glibc keep what is freed for the next tensor; whether it was told so.

    Left to itself it hands large blocks back to the system, which fills each page with zeros when it is touched
    anew: a quarter of a step at batch 128 (docs/results/allocator.md). No number changes; the process
    keeps its peak. Nothing is done where the user's environment has chosen, or where there is no glibc.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in CHOSEN):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    large = any(libc.mallopt(MMAP_THRESHOLD, size) for size in SIZES)
    return large and bool(libc.mallopt(TRIM_THRESHOLD, -1))
