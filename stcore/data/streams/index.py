"""Index of a stream's shards, written once beside them: hashes and label counts."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stcore.base.files import file_checksum, from_json, replacing
from stcore.data.streams.tar import read_labels
from stcore.errors import UsageError

INDEX = "stcore-index.json"


class Shard(NamedTuple):
    """One file of a stream, as it was when indexed."""

    path: Path
    bytes: int
    modified: int  # ns since 1970
    sha256: str  # of the file, hexadecimal
    labels: Mapping[int, int]  # label → number of images, for labels that occur
    largest: str  # a member with the largest label

    @property
    def samples(self) -> int:
        """Images in the file."""
        return sum(self.labels.values())


def index(parts: Mapping[str, Sequence[Path]]) -> dict[str, tuple[Shard, ...]]:
    """The shards of each part, all in one folder, from the index if name, size and time of the file match.

    Other shards are read completely once and added to the index, if it can be written.
    Raises DataError, with file and member, for a shard that is incomplete or holds something else.
    """
    paths = [path for part_paths in parts.values() for path in part_paths]
    index_path = paths[0].parent / INDEX
    indexed = _load_index(index_path)
    shards = {path: indexed.get(path.name) or _scan(path) for path in paths}
    if any(path.name not in indexed for path in paths):
        with contextlib.suppress(UsageError), replacing(index_path) as file:  # a folder may be read-only
            entries = indexed | {path.name: shard for path, shard in shards.items()}
            file.write(json.dumps([_entry(shard) for shard in entries.values()], indent=1).encode())
    return {part: tuple(shards[path] for path in part_paths) for part, part_paths in parts.items()}


def _scan(path: Path) -> Shard:
    labels: dict[int, int] = {}
    largest = ""
    for member, label in read_labels(path):
        if label > max(labels, default=-1):
            largest = member
        labels[label] = labels.get(label, 0) + 1
    status = path.stat()
    return Shard(path, status.st_size, status.st_mtime_ns, file_checksum(path), labels, largest)


def _load_index(index_path: Path) -> dict[str, Shard]:
    """The entries of unchanged files; an unreadable index is written again."""
    indexed = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        for entry in from_json(index_path.read_bytes()):
            path = index_path.parent / Path(entry["name"]).name
            labels = {int(label): int(count) for label, count in entry["labels"].items()}
            status = path.stat()
            shard = Shard(
                path, status.st_size, status.st_mtime_ns, str(entry["sha256"]), labels, str(entry["largest"])
            )
            if (shard.bytes, shard.modified) == (entry["bytes"], entry["modified"]):
                indexed[path.name] = shard
    return indexed


def _entry(shard: Shard) -> dict[str, Any]:
    entry = shard._asdict()
    return {"name": entry.pop("path").name, **entry}
