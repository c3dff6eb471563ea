"""The data folder: which published sets lie in it, and whether they are what was published."""

import os
import shlex
import shutil
from pathlib import Path
from typing import Literal, NamedTuple

from stcore.data.download.http import described, receiving
from stcore.data.download.registry import PUBLISHED, File, published
from stcore.errors import DataError

FOLDER = "STCLI_DATA"  # the environment's name for the data folder

State = Literal["here", "missing", "damaged"]


class Stored(NamedTuple):
    """A published file, where it lies or should lie, and how it is."""

    file: File
    path: Path
    state: State


class Imported(NamedTuple):
    name: str  # of the set
    path: Path


def data_folder(folder: str | Path | None = None) -> Path:
    """Where fetched sets lie: `folder`, else what STCLI_DATA says, else ~/.cache/stcore/data (on Linux)."""
    chosen = folder or os.environ.get(FOLDER)
    if chosen:
        return Path(chosen).expanduser()
    from pooch import os_cache

    return Path(os_cache("stcore")) / "data"


def file_states(name: str, folder: str | Path | None = None) -> list[Stored]:
    """The files of a set, those of another size than the published one as damaged; nothing is read.

    UsageError for a set that is not published.
    """
    place = data_folder(folder) / name
    return [Stored(file, place / file.name, _state(file, place / file.name)) for file in published(name).files]


def verify(name: str, folder: str | Path | None = None) -> list[Stored]:
    """The files of a set, those with another SHA-256 than the published one as damaged.

    UsageError for a set that is not published.
    """
    return [
        stored if stored.state != "here" or _sha256(stored.path) == stored.file.sha256 else damaged(stored)
        for stored in file_states(name, folder)
    ]


def fetched(name: str) -> Path:
    """The folder of a set that was fetched; DataError, with the command that fetches it, if it is not there."""
    for stored in file_states(name):
        if stored.state != "here":
            received = "no such file" if stored.state == "missing" else f"{stored.path.stat().st_size} bytes"
            raise DataError(
                f"{name}: expected {stored.file.name} of {stored.file.size} bytes in {stored.path.parent}, "
                f"received {received}; run {fetch_command(name)}, or name the place where you have it, {name}:PATH"
            )
    return data_folder() / name


def fetch_command(name: str, folder: str | Path | None = None) -> str:
    """What a user types to get a set."""
    words = ["stcli", "data", "fetch", name, *([] if folder is None else ["--data-dir", str(folder)])]
    return shlex.join(words)


def import_file(path: str | Path, folder: str | Path | None = None) -> Imported:
    """Copy a published file that was downloaded by hand into the data folder, whatever it is called now.

    DataError, and nothing is copied, if its SHA-256 is none that is known; UsageError where it cannot be written.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"expected a published file, such as cifar-10-python.tar.gz, received {str(path)!r}, which is "
            f"{'a folder: name the archive' if path.is_dir() else 'not there: check the path'}"
        )
    known = [(name, file) for name, one in PUBLISHED.items() for file in one.files]
    sha256, size = _sha256(path), path.stat().st_size
    for name, file in known:
        if file.sha256 == sha256:
            target = data_folder(folder) / name / file.name
            with path.open("rb") as source, receiving(target, file) as received:
                shutil.copyfileobj(source, received)
            return Imported(name, target)
    named = [file for _, file in known if file.name == path.name]
    expected = described(named[0]) if named else f"one of {', '.join(file.name for _, file in known)}"
    mend = "download it again" if named else "a set in another form is read where it lies, as cifar10:PATH"
    raise DataError(f"{path}: expected {expected}, received {size} bytes with sha256 {sha256}; {mend}")


def damaged(stored: Stored) -> Stored:
    return stored._replace(state="damaged")


def _state(file: File, path: Path) -> State:
    if not path.is_file():
        return "missing"
    return "here" if path.stat().st_size == file.size else "damaged"


def _sha256(path: Path) -> str:
    from pooch import file_hash

    return str(file_hash(str(path), alg="sha256"))
