"""The machine that a process runs on."""

from __future__ import annotations

import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


def processor() -> str:
    """The processor, and whether it has bfloat16 instructions, on which the speed of bf16 depends."""
    info = _CPU_INFO.read_text() if _CPU_INFO.is_file() else ""
    name = next((line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line), "")
    return f"{name or platform.processor()}, {'with' if 'bf16' in info else 'without'} bfloat16 instructions"
