"""Cache of decoded images: each part of a set is decoded once, and its processes share one memory map.

An entry is a folder, named by the SHA-256 of the source's bytes and of all that its pixels depend on. It holds
images.npy, labels.npy and, written last, entry.json with their checksums, which every opening compares.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from stcore.base.files import checksum, held, read_json, replacing, user_cache, write_json
from stcore.data.decoding import versions
from stcore.data.rows import Pixels
from stcore.errors import CacheWarning, DataError, UsageError

FOLDER = "STCLI_DATA_CACHE"
"""Environment variable that names the cache's folder, or is `off`."""
LIMIT = "STCLI_DATA_CACHE_GB"
"""Environment variable for the size in GiB beyond which the least recently used entries are removed."""
DEFAULT_LIMIT = 8.0
FORMAT = 1
"""Raise it when the files of an entry change."""
LEFT = 3600.0
"""Seconds after which an entry that is not whole counts as left; without locks nothing else says so."""

_ENTRY = "entry.json"
_NAME = re.compile(r"[0-9a-f]{64}")


class Decoded(NamedTuple):
    """One part of a set, decoded.

    broken: why the rows that were left out could not be decoded.   class_names: those that the source gives.
    """

    images: Pixels  # (N, H, W, C), an array or a memory map
    labels: npt.NDArray[np.int64]  # (N,)
    broken: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None


class Entry(NamedTuple):
    """An entry of the cache, for lists."""

    name: str
    source: str  # where its files were when it was written
    images: int
    shape: tuple[int, ...]  # (H, W, C)
    bytes: int
    used: float  # seconds since 1970


def cache_folder() -> Path | None:
    """The cache's folder: $STCLI_DATA_CACHE, else ~/.cache/stcore/decoded (on Linux); None if it is `off`."""
    configured = os.environ.get(FOLDER)
    if configured == "off":
        return None
    return Path(configured).expanduser() if configured else user_cache() / "decoded"


def cached(
    place: str, digest: Callable[[], str], settings: Mapping[str, Any], make: Callable[[], Decoded]
) -> Decoded:
    """What `make` decodes from a source, from the cache if it is there; else it is put there.

    place: of the source; what is said of a broken image begins with it.   digest: of the source's bytes in their
    order.   settings: the reader and its options, as far as images and labels depend on them.
    Warns by CacheWarning if the cache cannot be written, or an entry was damaged. Raises what `make` raises.
    """
    folder = cache_folder()
    if folder is None:
        return make()
    depends = {"format": FORMAT, "source": digest(), **settings, **versions()}
    entry = folder / checksum(depends)
    return _opened(entry, place) or _made(entry, place, make)


def entries(folder: Path) -> list[Entry]:
    """All entries, the most recently used first."""
    found = []
    for path in _folders(folder):
        with contextlib.suppress(DataError, OSError, KeyError):  # being written or removed
            about = read_json(path / _ENTRY)
            size = sum(file.stat().st_size for file in path.iterdir())
            count, *shape = about["shape"]
            used = (path / _ENTRY).stat().st_mtime
            found.append(Entry(path.name, about["place"], count, tuple(shape), size, used))
    return sorted(found, key=lambda entry: -entry.used)


def remove(folder: Path, name: str) -> None:
    """Removes an entry. Processes that map it keep its pages."""
    with contextlib.suppress(OSError):
        (folder / name / _ENTRY).unlink()  # first: without it there is no entry
    shutil.rmtree(folder / name, ignore_errors=True)


def limit_to(folder: Path, most: float, keep: str = "") -> list[Entry]:
    """Removes the least recently used entries beyond `most` bytes, but never `keep`; returns them.

    Also removes what killed processes left, once it is an hour old.
    """
    for path in _folders(folder):
        with contextlib.suppress(UsageError, OSError):
            if not (path / _ENTRY).is_file() and path.stat().st_mtime < time.time() - LEFT:
                with held(path):  # not while it is being written
                    shutil.rmtree(path, ignore_errors=True)
    removed, kept = [], 0
    for entry in sorted(entries(folder), key=lambda entry: entry.name != keep):
        if entry.name == keep or kept + entry.bytes <= most:
            kept += entry.bytes
        else:
            remove(folder, entry.name)
            removed.append(entry)
    return removed


def size_limit() -> float:
    """The cache's limit in bytes. Raises UsageError if the environment says something else."""
    configured = os.environ.get(LIMIT) or DEFAULT_LIMIT
    try:
        limit = float(configured)
        if not limit >= 0:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"{LIMIT}: expected a number of GiB, such as 8; received {configured!r}. Correct the environment"
        ) from None
    return limit * 2**30


def _folders(folder: Path) -> Iterator[Path]:
    """The folders of entries, whole or not; nothing else in the folder is ours."""
    with contextlib.suppress(OSError):
        yield from (path for path in sorted(folder.iterdir()) if _NAME.fullmatch(path.name) and path.is_dir())


def _opened(entry: Path, place: str) -> Decoded | None:
    """The entry's arrays, compared with their checksums; None if it is missing or damaged."""
    if not (entry / _ENTRY).is_file():
        return None
    try:
        about = read_json(entry / _ENTRY)
        images = _mapped(entry / "images.npy", about["images"])
        labels = np.array(_mapped(entry / "labels.npy", about["labels"]))
        if list(images.shape) != about["shape"] or [images.dtype, labels.dtype] != [
            np.dtype("u1"),
            np.dtype("i8"),
        ]:
            raise ValueError("other arrays than it declares")
    except (DataError, KeyError, OSError, ValueError) as error:
        warnings.warn(
            f"the decoded images of {place} in {entry} are damaged ({error}): they are decoded again",
            CacheWarning,
            stacklevel=2,
        )
        return None
    with contextlib.suppress(OSError):  # of a cache that may only be read
        os.utime(entry / _ENTRY)
    names = about["class_names"]
    broken = tuple(place + reason for reason in about["broken"])
    return Decoded(images, labels, broken, None if names is None else tuple(names))


def _mapped(path: Path, checksum: int) -> npt.NDArray[Any]:
    """The memory map of an npy file. Raises ValueError or OSError if it is not the file of this checksum."""
    if zlib.crc32(np.memmap(path, np.uint8, "r").data) != checksum:
        raise ValueError(f"{path.name} is not what its checksum says")
    array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _made(entry: Path, place: str, make: Callable[[], Decoded]) -> Decoded:
    """Decodes and writes the entry, or waits for another process that does."""
    with contextlib.ExitStack() as holding:
        try:
            entry.mkdir(parents=True, exist_ok=True)
            holding.callback(_tidy, entry)
            holding.enter_context(held(entry, wait=True))
        except OSError as error:
            return _uncached(make(), f"{entry.parent} cannot be written ({error.strerror})")
        found = _opened(entry, place)
        if found is not None:
            return found
        made, limit = make(), size_limit()
        if not made.labels.size:  # an empty file has no map
            return made
        if made.images.nbytes > limit:
            return _uncached(made, f"{place} takes {made.images.nbytes / 2**30:.2g} GiB, more than {LIMIT}")
        try:
            _write(entry, place, made)
        except (OSError, UsageError) as error:
            return _uncached(made, str(error))
        limit_to(entry.parent, limit, keep=entry.name)
        return _opened(entry, place) or made


def _write(entry: Path, place: str, made: Decoded) -> None:
    entry.mkdir(parents=True, exist_ok=True)  # another process may have removed it in the meantime
    about = {
        "place": place,
        "shape": made.images.shape,
        "images": _save(entry / "images.npy", made.images),
        "labels": _save(entry / "labels.npy", made.labels),
        "broken": [reason.removeprefix(place) for reason in made.broken],
        "class_names": made.class_names,
        "written": time.time(),
    }
    write_json(entry / _ENTRY, about)


def _save(path: Path, array: npt.NDArray[Any]) -> int:
    """Writes an npy file; returns its checksum."""
    with replacing(path) as file:
        summed = _Summed(file)
        np.save(summed, array)
    return summed.checksum


class _Summed:
    """A file to write to, and the checksum of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.checksum = file, 0

    def write(self, content: bytes) -> int:
        self.checksum = zlib.crc32(content, self.checksum)
        return self._file.write(content)


def _tidy(entry: Path) -> None:
    """Removes the folder of an entry that was not written."""
    if not (entry / _ENTRY).is_file():
        with contextlib.suppress(OSError):
            entry.rmdir()


def _uncached(made: Decoded, reason: str) -> Decoded:
    warnings.warn(
        f"decoded images are not kept for the next run: {reason}. Name another folder by {FOLDER}, or switch the "
        f"cache off by {FOLDER}=off",
        CacheWarning,
        stacklevel=2,
    )
    return made
