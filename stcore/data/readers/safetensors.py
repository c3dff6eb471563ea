"""Images and labels from safetensors files."""

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
    """Read train.safetensors, test.safetensors and, if any, validation.safetensors of a folder, or one file.

    Names of the arrays, `validation` and errors: see `load_named`. As the format has no text, class_names is an
    entry of a file's metadata instead, a name a line.
    """
    return load_named(Path(place), SAFETENSORS, validation)


@contextmanager
def _open(path: Path) -> Iterator[Archive]:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        said = file.metadata() or {}
        names = {"class_names": np.array(said["class_names"].splitlines())} if "class_names" in said else {}

        def read(name: str) -> npt.NDArray[Any]:
            array: npt.NDArray[Any] = names[name] if name in names else file.get_tensor(name)
            return array

        yield Lazy([*file.keys(), *names], read)


SAFETENSORS = Format(
    "safetensors",
    "a folder with train.safetensors and test.safetensors, or one safetensors file",
    "a whole safetensors file",
    "fetch it again, or write it by safetensors.numpy.save_file",
    _open,
    Path.is_file,
)
