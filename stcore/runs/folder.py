"""The folder of a run: settings, metrics, weights, result.

    config.toml        every setting, resolved; `stcli train --config` takes it again
    environment.json   versions, device, data fingerprint
    metrics.jsonl      a line per epoch
    best.safetensors   the weights of the selected epoch, in the framework-neutral layout
    last.safetensors   the weights of the last finished epoch (or of the step at Ctrl-C)
    best-ema.safetensors, last-ema.safetensors   with --ema, the averaged weights
    state/             what `stcli train --resume` continues from, until the run is finished
    result.json        the final table, when the run is finished

Every file but metrics.jsonl is written to a temporary file and then moved, so that none is ever half-written.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stcore.base.files import check_free, read_json, read_toml, replacing, write_file, write_json, writing
from stcore.base.weights_file import save_weights
from stcore.data.readers.sources import has_place
from stcore.errors import DataError, UsageError
from stcore.protocols import Array

CONFIG, ENVIRONMENT, METRICS, RESULT = "config.toml", "environment.json", "metrics.jsonl", "result.json"
WORKING_FOLDER = "folder"
"""The entry of environment.json that says where the run was begun: relative paths are relative to it."""
CHECKPOINTS = ("best", "last", "best-ema", "last-ema")  # each with .safetensors behind it


class RunFolder:
    """A run's files; `create` makes a new folder, `open` takes a finished one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def check_free(path: Path) -> None:
        """UsageError unless `path` does not exist or is empty, so that nothing earlier is lost."""
        check_free(path)

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """A new run in `path`, a free folder."""
        cls.check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"out: {path} cannot be made ({error.strerror}). Choose another folder") from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an earlier run; UsageError if `path` is none."""
        if not (path / CONFIG).is_file():
            raise UsageError(f"run: expected a folder with {CONFIG}, as stcli train leaves it; received {path}")
        return cls(path)

    @classmethod
    def unused(cls, parent: Path, name: str) -> Path:
        """`parent/name`, with the first free number appended if it exists."""
        candidates = (parent / (name if n == 1 else f"{name}-{n}") for n in range(1, 1_000_000))
        return next(path for path in candidates if not path.exists())

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Writes flat settings, without those that are None."""
        write_file(self.path / CONFIG, as_toml(settings))

    def read_config(self) -> dict[str, Any]:
        return read_toml(self.path / CONFIG)

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Adds to a UsageError the packages that the run was made with and that are not installed here."""
        try:
            yield
        except UsageError as error:
            packages = (self.read_json(ENVIRONMENT) or {}).get("packages", {})
            missing = [f"{name} of {package}" for name, package in packages.items() if not _is_installed(package)]
            if not missing:
                raise
            raise UsageError(
                f"{self.path} was made with {' and '.join(missing)}, which is not installed here: install it "
                f"({error})"
            ) from error

    def located(self, dataset: str) -> str:
        """The data set as it is named, or, if its path is relative and not here, below where the run was begun."""
        kind, _, place = dataset.partition(":")
        began = (self.read_json(ENVIRONMENT) or {}).get(WORKING_FOLDER)
        if not has_place(dataset) or not isinstance(began, str) or Path(place).exists():
            return dataset
        there = Path(began, place)
        return f"{kind}:{there}" if there.exists() else dataset

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_json(self.path / name, content)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        path = self.path / METRICS
        with writing(path), path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replaces all lines by these."""
        write_file(self.path / METRICS, "".join(json.dumps(row) + "\n" for row in rows))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The content of a JSON file; None if it does not exist, UsageError if it is damaged."""
        path = self.path / name
        if not path.is_file():
            return None
        try:
            return read_json(path)
        except DataError as error:
            raise UsageError(f"run: {error}") from error

    def write_weights(self, name: str, weights: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
        """Writes weights with the metadata from which their network is rebuilt."""
        save_weights(self.path / name, weights, metadata)

    def copy_weights(self, name: str, to: str) -> None:
        """Writes a weights file once more under another name."""
        with replacing(self.path / to) as file, (self.path / name).open("rb") as given:
            shutil.copyfileobj(given, file)


def as_toml(settings: Mapping[str, Any]) -> str:
    """The text of config.toml: flat settings, without those that are None. JSON's scalars and lists are TOML's."""
    dumped = {k: json.dumps(value, ensure_ascii=False) for k, value in settings.items() if value is not None}
    return "".join(f"{name} = {value}\n" for name, value in dumped.items())


def _is_installed(package: str) -> bool:
    """Whether a package is there, in any version. package: its name and version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return bool(version(package.split()[0]))
    except PackageNotFoundError:
        return False
