"""State dicts in PyTorch's files, to numpy and back, without ever running a pickle."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.base.files import replacing
from stcore.errors import UsageError

Array = NDArray[Any]


def read(path: Path, key: str | None = None) -> dict[str, Array]:
    """The state dict in a PyTorch file; of several in one file the one at `key`, such as "model_ema".

    UsageError where there is none, where several are and no key was given, or where the file would have code run.
    """
    found = dict(_state_dicts(_load(path)))
    if not found:
        raise UsageError(f"file: expected a dict of tensors by name, or one within a dict; {path} holds none")
    if key is None and len(found) == 1:
        (key,) = found
    if key not in found:
        there = ", ".join(map(repr, found))
        received = "none" if key is None else repr(key)
        raise UsageError(f"key: expected one of {path}'s state dicts, {there}; received {received}. Give --key")
    return {name: _numbers(tensor) for name, tensor in found[key].items()}


def write(path: Path, weights: Mapping[str, Array]) -> None:
    """A state dict that `torch.load` reads with weights_only, in the names of `weights`."""
    import torch

    with replacing(path) as file:
        torch.save({name: torch.from_numpy(np.array(array)) for name, array in weights.items()}, file)


def _load(path: Path) -> Any:
    import torch

    if not path.is_file():
        raise UsageError(f"file: expected a PyTorch file, such as .pt or .pth; {path} does not exist")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # foreign bytes make it raise many kinds
        with path.open("rb") as file:
            begin = file.read(64).lstrip()
        if begin.startswith(b"<"):
            raise UsageError(f"file: expected a checkpoint; {path} is a web page. Download it again") from error
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted is None:
            raise UsageError(f"file: expected a whole PyTorch file; {path} is none. Fetch it again") from error
        raise UsageError(
            f"file: expected a PyTorch file of tensors, numbers and text alone; {path} wants to run {wanted[1]}, "
            "which was refused. If you trust it, load it yourself and torch.save its state dict alone"
        ) from error


def _state_dicts(content: Any, where: str = "", depth: int = 3) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each dict with weights in it, by the keys that lead there, joined by dots; "" is the file's own."""
    import torch

    if not isinstance(content, Mapping):
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if any(name.endswith("weight") for name in tensors):  # an optimizer's state has none
        yield where, tensors
    elif depth:
        for name, inner in content.items():
            yield from _state_dicts(inner, f"{where}.{name}" if where else str(name), depth - 1)


def _numbers(tensor: Any) -> Array:
    """Half precision becomes float32: numpy has no bfloat16, and our networks take no float16."""
    half = tensor.is_floating_point() and tensor.element_size() < 4
    array: Array = (tensor.float() if half else tensor).detach().numpy()
    return array
