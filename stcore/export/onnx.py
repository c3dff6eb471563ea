"""ONNX files: their metadata, and their logits by onnxruntime."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from stcore.errors import UsageError
from stcore.protocols import Array


def check_installed(backend: str) -> None:
    """Raises UsageError if a package is missing that writes ONNX from this framework, or runs it."""
    for name in ("onnx", "onnxruntime", "onnxscript" if backend == "torch" else "tf2onnx"):
        if find_spec(name) is None:  # tf2onnx would import TensorFlow beside JAX
            raise _missing(name, "not installed")


def add_metadata(path: Path, texts: Mapping[str, str]) -> None:
    """Writes texts by name into the file's `metadata_props`."""
    onnx = _package("onnx")
    model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(texts))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def run(path: Path, images: Array, model: Any) -> Array:
    """The logits of the file alone."""
    session = _package("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    (takes,) = session.get_inputs()
    (logits,) = session.run(None, {takes.name: images})
    return np.asarray(logits)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _missing(name, str(error)) from error


def _missing(name: str, why: str) -> UsageError:
    return UsageError(
        f"onnx: {name} cannot be imported ({why}). pip install 'stcore[onnx]', or in the repository "
        "pip install '.[onnx]'"
    )
