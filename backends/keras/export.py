"""Files of a Keras network for deployment: SavedModel, TFLite, ONNX.

Arguments as in `stcore.backends.torch.export`; pixels are (N, H, W, C).
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from stcore.errors import UsageError
from stcore.protocols import Array

LAYOUT = "NHWC"


def write_saved_model(
    model: Any, path: Path, shape: tuple[int, int, int], of_bytes: bool, description: str
) -> None:
    """Writes a SavedModel into a folder; its signature is `serve`."""
    _tensorflow()
    _prepared(model, shape, of_bytes).export(path, format="tf_saved_model", verbose=False)


def run_saved_model(path: Path, images: Array, model: Any) -> Array:
    """The logits of the file alone."""
    saved = _tensorflow().saved_model.load(str(path))  # whose variables live as long as it
    return np.asarray(saved.serve(images))


def write_tflite(model: Any, path: Path, shape: tuple[int, int, int], of_bytes: bool, description: str) -> None:
    """Writes a TFLite file, without quantisation."""
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(model, Path(folder), shape, of_bytes, description)
        path.write_bytes(_tensorflow().lite.TFLiteConverter.from_saved_model(folder).convert())


def run_tflite(path: Path, images: Array, model: Any) -> Array:
    """The logits of the file alone."""
    with warnings.catch_warnings(action="ignore"):  # the interpreter has a successor in a package of its own
        interpreter = _tensorflow().lite.Interpreter(model_path=str(path))
    (takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(takes["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(takes["index"], images)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(gives["index"]))


def write_onnx(model: Any, path: Path, shape: tuple[int, int, int], of_bytes: bool, description: str) -> None:
    """Writes an ONNX file; the description is left to the caller."""
    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"onnx: expected Keras on TensorFlow; received {keras.backend.backend()}. Set "
            "KERAS_BACKEND=tensorflow, which reads the same weights"
        )
    network = _prepared(model, shape, of_bytes)
    with warnings.catch_warnings(action="ignore"):
        network(np.zeros((1, *shape), network.inputs[0].dtype))  # which this format asks for
        network.export(path, format="onnx", verbose=False)


WRITE: Mapping[str, Callable[[Any, Path, tuple[int, int, int], bool, str], None]] = {
    "savedmodel": write_saved_model,
    "tflite": write_tflite,
    "onnx": write_onnx,
}
RUN: Mapping[str, Callable[[Path, Array, Any], Array]] = {
    "savedmodel": run_saved_model,
    "tflite": run_tflite,
}


def dtype_of(model: Any) -> str:
    """The dtype of the pixels that a network takes, such as float32."""
    return str(keras.backend.standardize_dtype(model.inputs[0].dtype) if model.inputs else keras.config.floatx())


def _prepared(model: Any, shape: tuple[int, int, int], of_bytes: bool) -> Any:
    """The network of the file."""
    given = keras.Input(
        shape, dtype="uint8" if of_bytes else dtype_of(model), name="images" if of_bytes else "pixels"
    )
    pixels = ops.cast(given, dtype_of(model)) / 255 if of_bytes else given
    return keras.Model(given, model(pixels, training=False), name="network")


def _tensorflow() -> Any:
    """TensorFlow, which writes these files on Keras' other engines too."""
    try:
        import tensorflow
    except ImportError as error:
        raise UsageError(
            "export: tensorflow not installed, which writes SavedModel and TFLite; in the repository: "
            "pip install '.[keras]'"
        ) from error
    return tensorflow
