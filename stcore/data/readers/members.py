"""Files of a published set, read from its archive or its unpacked folder."""

import lzma
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stcore.data.readers.shards import contents
from stcore.errors import DataError


class Layout(NamedTuple):
    """A form in which a set is published."""

    archive: str
    folder: str
    train: tuple[str, ...]  # the names of the files
    test: tuple[str, ...]
    class_names: str  # may be missing


class Members(NamedTuple):
    """The files of a set in memory."""

    place: Path  # the archive or folder
    layout: Layout
    files: dict[str, bytes]  # all of the layout's train and test files, and class_names if present


def read_members(path: Path, layouts: Sequence[Layout]) -> Members:
    """Reads a set's files into memory without unpacking anything to disk.

    path: a folder that holds the archive or the folder of one of the layouts, or that archive or folder itself.
        A folder takes precedence over an archive, an earlier layout over a later one.
    Raises DataError, with the file, if there is none, if it cannot be read, or if one of its files is missing.
    """
    source = _find(path, layouts)
    names = {name for layout in layouts for name in (*_required(layout), layout.class_names)}
    try:
        files = _read_folder(source, names) if source.is_dir() else _read_archive(source, names)
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        raise DataError(
            f"{source}: expected {'a folder' if source.is_dir() else 'a whole tar archive'} that can be read, "
            f"received: {error}; fetch it again"
        ) from error
    layout = max(layouts, key=lambda layout: sum(name in files for name in _required(layout)))
    missing = [name for name in _required(layout) if name not in files]
    if missing:
        raise DataError(
            f"{source}: expected the files {', '.join(_required(layout))}, received none named "
            f"{', '.join(missing)}; fetch the whole set again"
        )
    return Members(source, layout, files)


def _find(path: Path, layouts: Sequence[Layout]) -> Path:
    if path.is_file():
        return path
    published = [layout.archive for layout in layouts]
    if not path.is_dir():
        raise DataError(f"expected {' or '.join(published)} or its folder, received {str(path)!r}; check the path")
    if any((path / name).is_file() for layout in layouts for name in _required(layout)):
        return path
    for candidate in [path / layout.folder for layout in layouts] + [path / name for name in published]:
        if candidate.exists():
            return candidate
    raise DataError(
        f"{path}: expected {' or '.join(published)} or the folder one of them unpacks to, "
        f"received {contents(path)}; name the folder that holds it"
    )


def _required(layout: Layout) -> tuple[str, ...]:
    return layout.train + layout.test


def _read_folder(folder: Path, names: set[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in sorted(names) if (folder / name).is_file()}


def _read_archive(archive: Path, names: set[str]) -> dict[str, bytes]:
    files = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            if name in names and member.isfile():  # no links: they may point anywhere
                stream = tar.extractfile(member)
                files[name] = stream.read() if stream else b""
        while tar.fileobj is not None and tar.fileobj.read(1 << 20):
            """Read past the last file to the end, which verifies the checksum."""
    return files
