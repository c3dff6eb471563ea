"""The data folder: which published sets it holds, and whether their files are intact."""

import os
import shlex
import shutil
from pathlib import Path
from typing import Literal, NamedTuple

from stcore.base.files import user_cache
from stcore.data.download.http import described, receiving
from stcore.data.download.registry import PUBLISHED, File, published
from stcore.errors import DataError

FOLDER = "STCLI_DATA"  # environment variable that names the data folder

State = Literal["here", "missing", "damaged"]


class Stored(NamedTuple):
    """A published file with its path in the data folder and its state."""

    file: File
    path: Path
    state: State


class Imported(NamedTuple):
    """A file copied into the data folder."""

    name: str  # of the set
    path: Path  # in the data folder


def data_folder(folder: str | Path | None = None) -> Path:
    """The folder of fetched sets: `folder`, else $STCLI_DATA, else ~/.cache/stcore/data (on Linux)."""
    configured = folder or os.environ.get(FOLDER)
    if configured:
        return Path(configured).expanduser()
    return user_cache() / "data"


def file_states(name: str, folder: str | Path | None = None) -> list[Stored]:
    """The files of a set, by size only: reads no file. A file of another size is damaged.

    Raises UsageError for a set that is not published.
    """
    directory = data_folder(folder) / name
    return [
        Stored(file, directory / file.name, _state(file, directory / file.name)) for file in published(name).files
    ]


def verify(name: str, folder: str | Path | None = None) -> list[Stored]:
    """The files of a set, by SHA-256: reads every file. A file with another hash is damaged.

    Returns one `Stored` per file, with state here, missing or damaged.
    Raises UsageError for a set that is not published.
    """
    return [
        stored._replace(state="damaged")
        if stored.state == "here" and _sha256(stored.path) != stored.file.sha256
        else stored
        for stored in file_states(name, folder)
    ]


def fetched(name: str) -> Path:
    """The folder of a fetched set. Raises DataError, with the command that fetches it, if a file is missing."""
    for stored in file_states(name):
        if stored.state != "here":
            received = "no such file" if stored.state == "missing" else f"{stored.path.stat().st_size} bytes"
            raise DataError(
                f"{name}: expected {stored.file.name} of {stored.file.size} bytes in {stored.path.parent}, "
                f"received {received}; run {fetch_command(name)}, or name the path of your copy, {name}:PATH"
            )
    return data_folder() / name


def fetch_command(name: str, folder: str | Path | None = None) -> str:
    """The command that fetches a set."""
    words = ["stcli", "data", "fetch", name, *([] if folder is None else ["--data-dir", str(folder)])]
    return shlex.join(words)


def import_file(path: str | Path, folder: str | Path | None = None) -> Imported:
    """Copies a published file that was downloaded by hand into the data folder, under its published name.

    path: of the file, under any name; its SHA-256 identifies it.   folder: as in `data_folder`.
    Raises DataError, with nothing copied, for an unknown SHA-256; UsageError if the copy cannot be written.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"expected a published file, such as cifar-10-python.tar.gz, received {str(path)!r}, which is "
            f"{'a folder: name the archive' if path.is_dir() else 'not there: check the path'}"
        )
    candidates = [(name, file) for name, entry in PUBLISHED.items() for file in entry.files]
    sha256, size = _sha256(path), path.stat().st_size
    for name, file in candidates:
        if file.sha256 == sha256:
            target = data_folder(folder) / name / file.name
            with path.open("rb") as source, receiving(target, file) as received:
                shutil.copyfileobj(source, received)
            return Imported(name, target)
    same_name = [file for _, file in candidates if file.name == path.name]
    expected = described(same_name[0]) if same_name else f"one of {', '.join(file.name for _, file in candidates)}"
    remedy = "download it again" if same_name else "a set in another form needs no import: load it as cifar10:PATH"
    raise DataError(f"{path}: expected {expected}, received {size} bytes with sha256 {sha256}; {remedy}")


def _state(file: File, path: Path) -> State:
    if not path.is_file():
        return "missing"
    return "here" if path.stat().st_size == file.size else "damaged"


def _sha256(path: Path) -> str:
    from pooch import file_hash

    return str(file_hash(str(path), alg="sha256"))
