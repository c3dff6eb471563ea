"""Folders in the layout of the Hugging Face hub, and their way to the hub and back.

config.json         the architecture, the classes, the preprocessing, the settings of the run
model.safetensors   the weights with their metadata, for either framework
README.md           the model card
evaluations/        records of its evaluations, if there are any
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stcore import models
from stcore.base.files import read_json, write_file
from stcore.base.version import __version__
from stcore.base.weights_file import save_weights
from stcore.errors import DataError, UsageError
from stcore.export.description import INSIDE, Description, Network

CONFIG, WEIGHTS, README = "config.json", "model.safetensors", "README.md"
PREFIX = "hf://"
"""Begins the name of a network on the hub: hf://OWNER/NAME, or hf://OWNER/NAME@REVISION."""
PLACE = f"{PREFIX}OWNER/NAME"
LIBRARY = "stcore"
_OF_PREPROCESSING = ("size", "channels", "mode", "orientation", "resize", "mean", "std")


def write(network: Network, folder: Path, place: str = PLACE) -> None:
    """Writes a network's files into a folder.   place: where its card says that it is loaded from."""
    save_weights(folder / WEIGHTS, models.export_weights(network.model), network.metadata)
    write_file(folder / CONFIG, json.dumps(config(network), indent=2, ensure_ascii=False) + "\n")
    write_file(folder / README, network.model_card(place))
    for name, path in network.evaluation_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)


def config(network: Network) -> dict[str, Any]:
    """The content of config.json, with the hub's own names where it has some."""
    count = int(network.metadata["num_classes"])
    names = network.class_names or tuple(map(str, range(count)))
    description = Description.of(network, INSIDE, "NHWC", "uint8").as_json()
    return {
        "library_name": LIBRARY,
        "library_version": __version__,
        "architecture": network.metadata["model"],
        "num_classes": count,
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
        "preprocessing": {name: description[name] for name in _OF_PREPROCESSING},
        "training": {name: _portable(name, value) for name, value in network.config.items()},
    }


def _portable(name: str, value: Any) -> Any:
    """A setting without the folders of this machine: of a data set folder:/data/photos it leaves folder:photos."""
    if name not in ("dataset", "extra_data", "init_weights") or not isinstance(value, str):
        return value
    kind, _, place = value.rpartition(":")
    return value if kind in ("hub", "zoo") else f"{kind}:{Path(place).name}".removeprefix(":")


def is_folder(path: Path) -> bool:
    """Whether a folder has this layout."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def training(folder: Path) -> Mapping[str, Any]:
    """The settings of the run that made the network of a folder; empty if unknown.

    Raises DataError if config.json is damaged or another program's.
    """
    content = read_json(folder / CONFIG)
    if content.get("library_name") != LIBRARY or not isinstance(content.get("training"), dict):
        raise DataError(
            f"{folder / CONFIG}: expected that of a network of stcore; received another program's. Build its "
            f"network, and give its weights: stcore.load({str(folder / WEIGHTS)!r}, model=…)"
        )
    found: dict[str, Any] = content["training"]
    return found


def check_repository(name: str) -> None:
    """Raises UsageError for a name that is not OWNER/NAME."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UsageError(f"repository: expected OWNER/NAME; received {name!r}")


def upload(folder: Path, repository: str, *, private: bool = False) -> str:
    """Uploads a folder of this layout, in one commit; returns the address of the repository.

    The account is that of `hf auth login` or of HF_TOKEN.   private: of a repository that is made for it.
    Raises UsageError for another name, or if huggingface_hub is missing, DataError if the hub refuses.
    """
    check_repository(repository)
    library = _library()
    try:
        api = library.HfApi(endpoint=_endpoint())
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Upload by stcore {__version__}")
    except Exception as error:  # the library raises its own kinds, those of its client and of the system
        raise _refused(repository, error) from error
    return str(address)


def download(place: str) -> Path:
    """The folder of the network hf://OWNER/NAME or hf://OWNER/NAME@REVISION, from the hub or its cache.

    Only config.json and model.safetensors are fetched. Raises as `upload` does.
    """
    repository, _, revision = place.removeprefix(PREFIX).partition("@")
    check_repository(repository)
    library = _library()
    try:
        found = library.snapshot_download(
            repository, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS], endpoint=_endpoint()
        )
    except Exception as error:
        raise _refused(repository, error) from error
    folder = Path(found)
    if not is_folder(folder):
        raise DataError(
            f"{PREFIX}{repository}: expected {CONFIG} and {WEIGHTS} there; received neither or only one"
        )
    return folder


def _endpoint() -> str | None:
    """The hub's address, if HF_ENDPOINT names another than huggingface.co."""
    return os.environ.get("HF_ENDPOINT") or None


def _library() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UsageError(
            "hub: huggingface_hub not installed: pip install 'stcore[huggingface]', or in the repository "
            "pip install '.[huggingface]'"
        ) from error


def _refused(repository: str, error: Exception) -> DataError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(
        f"{PREFIX}{repository}: expected the hub to accept this; received {type(error).__name__}: {reason}. Check "
        "the name, the connection and the account (hf auth login)"
    )
