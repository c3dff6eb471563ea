"""Atomic file writing, and reading of JSON, TOML and array files.

A file is written beside its place and moved there when complete: readers see the whole file or none.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import json
import os
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stcore.base.declared import check_npz
from stcore.errors import DataError, UsageError
from stcore.protocols import Array


def write_file(path: Path, content: str | bytes) -> None:
    """Writes text (as UTF-8) or bytes. Raises UsageError if the file cannot be written."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


CHECKSUM = "checksum"
"""The entry of a JSON object that covers all others."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes plain values by name as indented JSON, with a checksum. Raises UsageError if it cannot be written."""
    plain = as_plain(content)
    write_file(path, json.dumps({**plain, CHECKSUM: checksum(plain)}, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads what `write_json` wrote, or an object without a checksum, as earlier versions wrote it.

    Raises DataError if it is missing or damaged, or holds something else.
    """
    try:
        content = from_json(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}, not an object")
        if content.pop(CHECKSUM, None) not in (None, checksum(content)):
            raise ValueError("its contents are not what its checksum says")
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return content


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of plain values, whatever their order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_checksum(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def user_cache() -> Path:
    """The folder of files that can be made again: on Linux stcore in $XDG_CACHE_HOME, by default ~/.cache."""
    from platformdirs import user_cache_path

    return user_cache_path("stcore")


def as_plain(value: Any) -> Any:
    """Plain values as they come back from JSON: keys are text, tuples are lists."""
    return json.loads(json.dumps(value))


def from_json(text: str | bytes) -> Any:
    """Plain values from JSON. Raises ValueError if it is none, or so deep that Python cannot read it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("brackets within brackets without end") from None


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes arrays by name as an .npz file. Raises UsageError if the file cannot be written."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    with replacing(path) as file:
        file.write(buffer.getbuffer())


def read_arrays(path: Path) -> dict[str, Array]:
    """Reads arrays by name from an .npz file, without pickle. Raises DataError if it is missing or damaged."""
    try:
        check_npz(path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, numpy and zlib raise a dozen kinds
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is missing or damaged ({error}). Restore it, or make it again in another place")


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file as a dict. Raises UsageError if it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"config: {path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and brackets without end
        raise UsageError(f"config: {path} is not valid TOML: {error}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file beside `path`, and moves it to `path` at the end of the block.

    After an exception the temporary file is removed, and what was at `path` stays.
    Raises UsageError if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writing(path):
            _sweep_of(path)
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Makes a temporary folder, and moves it to `path`, which is new or empty, at the end of the block.

    After an exception the temporary folder is removed, and `path` stays as it was.
    Raises UsageError if `path` holds files, or cannot be written.
    """
    check_free(path)
    temporary = path.absolute().with_name(f".{path.absolute().name}.{os.getpid()}.part")
    with writing(path):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        _sweep_of(path.absolute())
        temporary.mkdir()
    try:
        yield temporary
        with writing(path):
            if path.is_dir():
                sweep(path)
                path.rmdir()
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_free(path: Path) -> None:
    """Raises UsageError unless `path` does not exist or is empty, so that nothing earlier is lost."""
    if path.exists() and not (path.is_dir() and is_vacant(path)):
        what = "holds other files" if path.is_dir() else "is a file"
        raise UsageError(f"out: expected a new or empty folder; {path} {what}. Choose another folder")


def _sweep_of(path: Path) -> None:
    """Removes what killed processes of this machine left of this file or folder; those that still write it keep
    theirs."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        number = left.name.split(".")[-2]
        if number.isdigit() and int(number) != os.getpid() and not _is_running(int(number)):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Whether a process of this number runs; on Windows, where signal 0 is another's Ctrl-C, it may."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of somebody else
        pass
    return True


LEFT = ".*.part"
"""Temporary files of `replacing`, which a killed process leaves."""


def sweep(folder: Path) -> None:
    """Removes temporary files that a killed process left in `folder`; nobody else may be writing there."""
    for left in folder.glob(LEFT):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def is_vacant(folder: Path) -> bool:
    """Whether a folder holds nothing but what killed processes left."""
    return all(path.match(LEFT) for path in folder.iterdir())


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError of the block into a UsageError that names the path."""
    try:
        yield
    except OSError as error:  # the error of a full disk names no path
        reason = error.strerror or error
        raise UsageError(f"{path} cannot be written ({reason}). Free space or choose another place") from error


@contextlib.contextmanager
def held(folder: Path, doing: str = "training", *, wait: bool = False) -> Iterator[None]:
    """Locks a folder for this process during the block. Raises UsageError if another process holds it.

    doing: what such a process does there, as the error says.   wait: wait for it instead.
    An advisory lock on the folder itself, which leaves no file and ends with the process. A system or file system
    without such locks excludes nobody.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UsageError(
                f"run: another process is {doing} in {folder}, and two would overwrite each other's files. Wait "
                "until it ends, or stop it"
            ) from None
        except OSError:  # some network file systems
            pass
        yield
    finally:
        os.close(handle)
