"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stcore.errors import DataError, UsageError
from stcore.protocols import Array


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write beside `path`, moved there when all went well; else none is left, and what was there stays.

    UsageError where it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writing(path):
            with beside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps the folder for this process, until the end or the process' own; UsageError where another has it.

    An advisory lock on the folder itself, which leaves no file. Where a system or a file system has none, it keeps
    nobody out.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"run: another process is training in {folder}, and two would write over each other. Wait until "
                "it ends, or stop it"
            ) from None
        except OSError:  # some network file systems
            pass
        yield
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Removes what `replacing` was writing there when its process was killed; nobody else may be writing."""
    for left in folder.glob(".*.part"):
        left.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """UsageError, with the path, for what the system says against writing there."""
    try:
        yield
    except OSError as error:  # of a full disk the error itself knows no path
        reason = error.strerror or error
        raise UsageError(f"{path} cannot be written ({reason}). Free space or choose another place") from error


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dict; UsageError where it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"config: {path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"config: {path} is not valid TOML: {error}") from error


def write_file(path: Path, content: str | bytes) -> None:
    """Writes beside the place and moves there when complete."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """A JSON file of ours; DataError where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is missing or damaged ({error}). Evaluate again into another --out") from error


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    held = io.BytesIO()
    np.savez(held, **arrays)  # type: ignore[arg-type]
    with replacing(path) as file:
        file.write(held.getbuffer())


def read_arrays(path: Path) -> dict[str, Array]:
    """An .npz of ours; DataError where it is missing or damaged. Nothing in it is executed."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, numpy and zlib have a dozen kinds
        raise DataError(f"{path} is missing or damaged ({error}). Evaluate again into another --out") from error
