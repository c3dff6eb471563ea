"""PyTorch's devices, threads and determinism."""

from __future__ import annotations

import os

import torch

from stcore.backends.torch.allocator import keep_freed_memory
from stcore.backends.torch.precision import use_float32
from stcore.errors import DeviceError


def use_device(name: str) -> str:
    """The torch name of a device (`auto`, `cpu`, `cuda`, `cuda:N`, `mps`); `auto` takes the first accelerator.

    Also turns TF32 off unless a precision asks for it, and keeps freed memory for the next tensor on a CPU.
    Raises DeviceError if there is no such device.
    """
    use_float32()
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if name in ("cuda", "gpu") and "LOCAL_RANK" in os.environ:  # each rank has its own
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    kind, _, index = name.replace("gpu", "cuda").partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not available.get(kind) or not (index or "0").isdigit() or int(index or 0) >= count:
        kinds = ", ".join(kind for kind, present in available.items() if present)
        raise DeviceError(f"device: expected auto or one of {kinds}; received {name!r}")
    if kind == "cpu":
        keep_freed_memory()
    elif kind == "cuda":
        torch.cuda.set_device(int(index or 0))  # for what asks for no device, as a communicator or a graph
    return f"{kind}:{index}" if index else kind


def devices() -> list[str]:
    """The devices that `use_device` accepts on this machine; GPUs with their model names."""
    names = ["cpu", *(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count()))]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


def use_threads(count: int) -> None:
    """Limits PyTorch to this many CPU threads."""
    torch.set_num_threads(count)


def threads() -> int:
    """The number of CPU threads per operation."""
    return torch.get_num_threads()


def use_determinism() -> None:
    """Selects deterministic algorithms, even if they are slower."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA's matrix products require it
    torch.use_deterministic_algorithms(True)


def versions() -> dict[str, str]:
    """Versions of the packages that the results depend on."""
    return {"torch": torch.__version__}
