"""Where PyTorch computes, and with how many threads."""

from __future__ import annotations

import os

import torch

from stcore.backends.torch.allocator import keep_freed_memory
from stcore.backends.torch.precision import use_float32
from stcore.errors import DeviceError


def use_device(name: str) -> str:
    """The device of this name (`auto`, `cpu`, `cuda`, `cuda:N`, `mps`); `auto` takes the first accelerator.

    There float32 is float32, and no TF32 but where it is asked for; on a CPU, freed memory is kept for the next
    tensor. DeviceError where there is no such device.
    """
    use_float32()
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if found[kind])
    if name in ("cuda", "gpu") and "LOCAL_RANK" in os.environ:  # each rank has its own
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    kind, _, index = name.replace("gpu", "cuda").partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not found.get(kind) or not (index or "0").isdigit() or int(index or 0) >= count:
        known = ", ".join(kind for kind, here in found.items() if here)
        raise DeviceError(f"device: expected auto or one of {known}; received {name!r}")
    if kind == "cpu":
        keep_freed_memory()
    return f"{kind}:{index}" if index else kind


def devices() -> list[str]:
    """What `use_device` could be given here, accelerators by their name."""
    found = ["cpu", *(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def use_threads(count: int) -> None:
    """Limits PyTorch to this many CPU threads."""
    torch.set_num_threads(count)


def threads() -> int:
    """How many CPU threads there are to one operation."""
    return torch.get_num_threads()


def use_determinism() -> None:
    """Algorithms whose results do not depend on how threads meet, even where they are slower."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which CUDA's matrix products ask for
    torch.use_deterministic_algorithms(True)


def versions() -> dict[str, str]:
    """The packages that decide the numbers."""
    return {"torch": torch.__version__}
