"""Files of a published set, read from its archive or its unpacked folder."""

import lzma
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stcore.base.declared import check_expansion
from stcore.data.readers.shards import contents
from stcore.errors import DataError


class Layout(NamedTuple):
    """A form in which a set is published."""

    archive: str
    folder: str
    train: tuple[str, ...]  # the names of the files
    test: tuple[str, ...]
    class_names: str  # may be missing

    def of(self, part: str) -> tuple[str, ...]:
        """The names of the files of train or test."""
        return self.train if part == "train" else self.test


class Members(NamedTuple):
    """The files of a set in memory."""

    place: Path  # the archive or folder
    layout: Layout
    files: dict[str, bytes]  # of the parts that were asked for, and class_names if it is there


def read_members(path: Path, layouts: Sequence[Layout], parts: Sequence[str]) -> Members:
    """Reads the files of these parts, train or test, into memory without unpacking anything to disk.

    path: a folder that holds the archive or the folder of one of the layouts, or that archive or folder itself.
        A folder takes precedence over an archive, an earlier layout over a later one.
    Raises DataError, with the file, if there is none, if it cannot be read, or if one of its files is missing.
    """
    source = _find(path, layouts, parts)
    names = {name for layout in layouts for name in (*_required(layout, parts), layout.class_names)}
    try:
        files = _read_folder(source, names) if source.is_dir() else _read_archive(source, names)
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        raise DataError(
            f"{source}: expected {'a folder' if source.is_dir() else 'a whole tar archive'} that can be read, "
            f"received: {error}; fetch it again"
        ) from error
    layout = max(layouts, key=lambda layout: sum(name in files for name in _required(layout, parts)))
    required = _required(layout, parts)
    missing = [name for name in required if name not in files]
    if missing:
        raise DataError(
            f"{source}: expected the files {', '.join(required)}, received none named "
            f"{', '.join(missing)}; fetch the whole set again"
        )
    return Members(source, layout, files)


def _find(path: Path, layouts: Sequence[Layout], parts: Sequence[str]) -> Path:
    if path.is_file():
        return path
    published = [layout.archive for layout in layouts]
    if not path.is_dir():
        raise DataError(f"expected {' or '.join(published)} or its folder, received {str(path)!r}; check the path")
    if any((path / name).is_file() for layout in layouts for name in _required(layout, parts)):
        return path
    for candidate in [path / layout.folder for layout in layouts] + [path / name for name in published]:
        if candidate.exists():
            return candidate
    raise DataError(
        f"{path}: expected {' or '.join(published)} or the folder one of them unpacks to, "
        f"received {contents(path)}; name the folder that holds it"
    )


def _required(layout: Layout, parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for part in parts for name in layout.of(part))


def _read_folder(folder: Path, names: set[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in sorted(names) if (folder / name).is_file()}


def _read_archive(archive: Path, names: set[str]) -> dict[str, bytes]:
    files = {}
    stored, declared = archive.stat().st_size, 0
    with tarfile.open(archive) as tar:
        for member in tar:
            declared += member.size
            check_expansion(archive, declared, stored)
            name = Path(member.name).name
            if name in names and member.isfile():  # no links: they may point anywhere
                stream = tar.extractfile(member)
                files[name] = stream.read() if stream else b""
        while tar.fileobj is not None and tar.fileobj.read(1 << 20):
            """Read past the last file to the end, which verifies the checksum."""
    return files
