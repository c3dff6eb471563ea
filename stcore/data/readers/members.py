"""The files of a published set, from its archive or from the folder that the archive unpacks to."""

import lzma
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stcore.data.readers.shards import contents
from stcore.errors import DataError


class Layout(NamedTuple):
    """One form in which a set is published."""

    archive: str
    folder: str
    train: tuple[str, ...]  # the names of the files
    test: tuple[str, ...]
    class_names: str  # may be missing

    def of(self, part: str) -> tuple[str, ...]:
        """The names of the files of train or test."""
        return self.train if part == "train" else self.test


class Members(NamedTuple):
    place: Path
    layout: Layout
    files: dict[str, bytes]  # of the parts that were asked for, and class_names if it is there


def read_members(path: Path, layouts: Sequence[Layout], parts: Sequence[str]) -> Members:
    """Read the files of these parts, train or test, into memory; nothing is unpacked to the disk.

    path: a folder that holds the archive or the folder of one of the layouts, or that archive or folder itself.
        A folder goes before an archive, an earlier layout before a later one.
    DataError, which names the file, if there is none, if it cannot be read, or if one of its files is missing.
    """
    place = _find(path, layouts, parts)
    wanted = {name for layout in layouts for name in (*_needed(layout, parts), layout.class_names)}
    try:
        files = _of_folder(place, wanted) if place.is_dir() else _of_archive(place, wanted)
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        raise DataError(
            f"{place}: expected {'a folder' if place.is_dir() else 'a whole tar archive'} that can be read, "
            f"received: {error}; fetch it again"
        ) from error
    layout = max(layouts, key=lambda layout: sum(name in files for name in _needed(layout, parts)))
    needed = _needed(layout, parts)
    missing = [name for name in needed if name not in files]
    if missing:
        raise DataError(
            f"{place}: expected the files {', '.join(needed)}, received none named "
            f"{', '.join(missing)}; fetch the whole set again"
        )
    return Members(place, layout, files)


def _find(path: Path, layouts: Sequence[Layout], parts: Sequence[str]) -> Path:
    if path.is_file():
        return path
    published = [layout.archive for layout in layouts]
    if not path.is_dir():
        raise DataError(f"expected {' or '.join(published)} or its folder, received {str(path)!r}; check the path")
    if any((path / name).is_file() for layout in layouts for name in _needed(layout, parts)):
        return path
    for place in [path / layout.folder for layout in layouts] + [path / name for name in published]:
        if place.exists():
            return place
    raise DataError(
        f"{path}: expected {' or '.join(published)} or the folder one of them unpacks to, "
        f"received {contents(path)}; name the folder that holds it"
    )


def _needed(layout: Layout, parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for part in parts for name in layout.of(part))


def _of_folder(folder: Path, wanted: set[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in sorted(wanted) if (folder / name).is_file()}


def _of_archive(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    files = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            if name in wanted and member.isfile():  # no links: they may point anywhere
                stream = tar.extractfile(member)
                files[name] = stream.read() if stream else b""
        while tar.fileobj is not None and tar.fileobj.read(1 << 20):
            """To the end, past the last file: there the checksum stands."""
    return files
