"""Files of a PyTorch network for deployment: ONNX, a program of torch.export, a state dict.

Each target has a function that writes it and, unless another program runs it, one that computes its logits.

model: maps pixels in [0, 1], (N, C, H, W), to logits; it is not changed.   shape: (H, W, C) of an image.
of_bytes: the file takes uint8 images (N, H, W, C) instead.   description: text that goes into the file.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from stcore.protocols import Array

LAYOUT = "NCHW"
"""Of the pixels that a network takes."""
DESCRIPTION = "preprocessing.json"
"""The extra file of a program that holds its description."""


def write_onnx(
    model: nn.Module, path: Path, shape: tuple[int, int, int], of_bytes: bool, description: str
) -> None:
    """Writes an ONNX file; the description is left to the caller."""
    network, batch = _prepared(model, shape, of_bytes)
    with _quiet():
        torch.onnx.export(
            network,
            (batch,),
            path,
            input_names=["images" if of_bytes else "pixels"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def write_program(
    model: nn.Module, path: Path, shape: tuple[int, int, int], of_bytes: bool, description: str
) -> None:
    """Writes a program that `torch.export.load` reads."""
    network, batch = _prepared(model, shape, of_bytes)
    with _quiet():
        program = torch.export.export(network, (batch,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, path, extra_files={DESCRIPTION: description})


def run_program(path: Path, images: Array, model: nn.Module) -> Array:
    """The logits of the file alone."""
    with _quiet():
        program = torch.export.load(path).module()
    return _logits(program, images)


def write_state_dict(
    model: nn.Module, path: Path, shape: tuple[int, int, int], of_bytes: bool, description: str
) -> None:
    """Writes the network's own `state_dict()`, which `torch.load` reads with weights_only."""
    torch.save(_host(model).state_dict(), path)


def run_state_dict(path: Path, images: Array, model: nn.Module) -> Array:
    """The logits of a copy of the model that loaded the file."""
    network = _host(model)
    network.load_state_dict(torch.load(path, weights_only=True))
    return _logits(network, images)


WRITE: Mapping[str, Callable[[nn.Module, Path, tuple[int, int, int], bool, str], None]] = {
    "onnx": write_onnx,
    "torch-export": write_program,
    "state-dict": write_state_dict,
}
RUN: Mapping[str, Callable[[Path, Array, nn.Module], Array]] = {
    "torch-export": run_program,
    "state-dict": run_state_dict,
}


class OfBytes(nn.Module):
    """A network that takes uint8 images (N, H, W, C)."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, images: Tensor) -> Tensor:
        """The logits (N, classes)."""
        logits: Tensor = self.network(images.permute(0, 3, 1, 2).to(self.dtype) / 255)
        return logits


def dtype_of(model: nn.Module) -> str:
    """The dtype of the pixels that a network takes, such as float32."""
    return str(_dtype(model)).removeprefix("torch.")


def _dtype(model: nn.Module) -> torch.dtype:
    return next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)


def _host(model: nn.Module) -> nn.Module:
    """A copy on the CPU in evaluation mode."""
    bare: nn.Module = getattr(model, "_orig_mod", model)  # torch.compile wraps a module
    return copy.deepcopy(bare).cpu().eval()


def _prepared(model: nn.Module, shape: tuple[int, int, int], of_bytes: bool) -> tuple[nn.Module, Tensor]:
    """The network of the file, and a batch of two for it: of one image, a tracer takes the batch for constant."""
    network, (height, width, channels) = _host(model), shape
    if of_bytes:
        return OfBytes(network, _dtype(model)).eval(), torch.zeros((2, *shape), dtype=torch.uint8)
    return network, torch.zeros((2, channels, height, width), dtype=_dtype(model))


def _logits(network: nn.Module, images: Array) -> Array:
    with torch.no_grad():
        logits: Array = network(torch.from_numpy(images)).numpy()
    return logits


def _quiet() -> warnings.catch_warnings[None]:
    """No warnings of the exporter's own code."""
    return warnings.catch_warnings(action="ignore")
