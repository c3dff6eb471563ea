"""safetensors files of images and labels."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stcore.data.images import Splits
from stcore.data.readers.archive import Archive, Format, Lazy
from stcore.data.readers.named import load_named
from stcore.data.split import Validation


def load_safetensors(place: str | Path, *, validation: Validation = None) -> Splits:
    """Reads train.safetensors, test.safetensors and, if any, validation.safetensors of a folder, or one file.

    Array names, `validation` and errors are those of `load_npz`. The format has no text, so class_names is an
    entry of a file's metadata, with one name per line.
    """
    return load_named(Path(place), SAFETENSORS, validation)


@contextmanager
def _open(path: Path) -> Iterator[Archive]:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        text = (file.metadata() or {}).get("class_names")
        extra = {} if text is None else {"class_names": np.array(text.splitlines())}

        def read(name: str) -> npt.NDArray[Any]:
            array: npt.NDArray[Any] = extra[name] if name in extra else file.get_tensor(name)
            return array

        yield Lazy([*file.keys(), *extra], read)


SAFETENSORS = Format(
    "safetensors",
    "a folder with train.safetensors and test.safetensors, or one safetensors file",
    "a whole safetensors file",
    "fetch it again, or write it by safetensors.numpy.save_file",
    _open,
    Path.is_file,
)
