"""Files of Keras, read without pickles and without code: weights, and whole networks in safe mode."""

from pathlib import Path
from typing import Any

import keras
from numpy.typing import NDArray

from stcore.errors import UsageError
from stcore.models.convert import export_weights, without_normalization

SAFE = (3, 11)
"""The first Keras whose safe mode is known to run no code of a file: earlier ones import what the file names."""


def read(path: Path, model: Any) -> dict[str, NDArray[Any]]:
    """The weights of a .weights.h5, .h5 or .keras file by canonical name; such a file orders them by layers alone.

    model: a network of the file's layers, which keeps its own weights.
    Raises UsageError if the file is missing, damaged, or of other layers.
    """
    _check_there(path)
    network = without_normalization(model)
    before = network.get_weights()
    try:
        network.load_weights(path)
        return export_weights(network)
    except Exception as error:  # h5py, zipfile and Keras raise many kinds
        raise UsageError(
            f"weights: expected those of the layers of {model.name}; {path} does not fit ({_first_line(error)})"
        ) from error
    finally:
        network.set_weights(before)


def network(path: Path) -> Any:
    """The network of a .keras file, which holds its layers too; nothing in the file is run.

    Raises UsageError for a file of weights alone, or one that is damaged or would run code (a Lambda layer).
    """
    _check_there(path)
    if path.suffix != ".keras":
        raise UsageError(
            f"model: expected the network of {path}, which holds weights alone; received none. Give it as model="
        )
    if tuple(map(int, keras.__version__.split(".")[:2])) < SAFE:
        raise UsageError(
            f"model: expected Keras {'.'.join(map(str, SAFE))} or later to read a whole network safely; received "
            f"{keras.__version__}. Build the network yourself and give it as model="
        )
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise UsageError(
            f"source: expected a .keras file of Keras' own layers; {path} cannot be read ({_first_line(error)}). "
            "Build the network yourself and give it as model="
        ) from error


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"weights: expected a file of Keras; {path} does not exist")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
