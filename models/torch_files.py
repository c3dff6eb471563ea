"""State dicts in PyTorch files, read to numpy and written without running a pickle."""

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
    """Reads the state dict of a PyTorch file; `key`, such as "model_ema", selects one of several.

    Raises UsageError if there is none, if there are several and no key, or if the file would run code.
    """
    state_dicts = dict(_state_dicts(_load(path)))
    if not state_dicts:
        raise UsageError(f"file: expected a dict of tensors by name, or one within a dict; {path} holds none")
    if key is None and len(state_dicts) == 1:
        (key,) = state_dicts
    if key not in state_dicts:
        keys = ", ".join(map(repr, state_dicts))
        received = "none" if key is None else repr(key)
        raise UsageError(f"key: expected one of {path}'s state dicts, {keys}; received {received}. Give --key")
    return {name: _to_numpy(tensor, f"{path}: {name}") for name, tensor in state_dicts[key].items()}


def write(path: Path, weights: Mapping[str, Array]) -> None:
    """Writes a state dict that `torch.load` reads with weights_only, with the names of `weights`."""
    import torch

    with replacing(path) as file:
        torch.save({name: torch.from_numpy(np.array(array)) for name, array in weights.items()}, file)


def _load(path: Path) -> Any:
    import torch

    if not path.is_file():
        raise UsageError(f"file: expected a PyTorch file, such as .pt or .pth; {path} does not exist")
    try:
        with torch.serialization.safe_globals(_NUMBERS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of errors on invalid bytes
        with path.open("rb") as file:
            begin = file.read(64).lstrip()
        if begin.startswith(b"<"):
            raise UsageError(f"file: expected a checkpoint; {path} is a web page. Download it again") from error
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        if name is None:
            raise UsageError(f"file: expected a whole PyTorch file; {path} is none. Fetch it again") from error
        raise UsageError(
            f"file: expected a PyTorch file of tensors, numbers and text alone; {path} wants to run {name[1]}, "
            "which was refused. If you trust it, load it yourself and torch.save its state dict alone"
        ) from error


class _Kind:
    """A numpy dtype of a pickle, of numbers only."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not re.fullmatch(r"[biuf]\d", str(code)):
            raise ValueError(f"a dtype {code!r}")
        self.dtype = np.dtype(str(code))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


def _scalar(kind: _Kind, raw: bytes) -> Any:
    """A numpy scalar of a pickle, as a number."""
    return np.frombuffer(raw, kind.dtype)[0].item()


_NUMBERS: list[Any] = [
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (_Kind, "numpy.dtype"),
]
"""Beside its tensors a checkpoint often has a numpy scalar. numpy's own functions are not called for it."""


def _state_dicts(content: Any, path: str = "", depth: int = 3) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each dict with weights and its dotted path of keys; "" is the top level of the file."""
    import torch

    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    if not isinstance(content, Mapping):
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if any(name.endswith("weight") for name in tensors):  # an optimizer's state has none
        yield path, tensors
    elif depth:
        for name, inner in content.items():
            yield from _state_dicts(inner, f"{path}.{name}" if path else str(name), depth - 1)


def _to_numpy(tensor: Any, where: str) -> Array:
    """The tensor as an array; half precision becomes float32: numpy has no bfloat16, our networks no float16.

    Raises UsageError for a tensor without numbers of its own (meta), one whose layout numpy has not (sparse,
    quantised), and one that declares more numbers than the file holds: a stride of 0 makes 4 bytes billions.
    """
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        kind = "quantised" if tensor.is_quantized else "meta" if tensor.is_meta else "sparse"
        raise UsageError(f"file: expected plain tensors; {where} is {kind}. Save it as a dense tensor of floats")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UsageError(
            f"file: expected tensors of the numbers they hold; {where} declares {tuple(tensor.shape)} over "
            f"{tensor.untyped_storage().nbytes()} bytes (an expanded tensor). Save its clone()"
        )
    half = tensor.is_floating_point() and tensor.element_size() < 4
    array: Array = (tensor.float() if half else tensor).detach().numpy()
    return array
