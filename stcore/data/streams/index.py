"""What is known of a stream's shards without reading them again: an index beside them, made once."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stcore.base.files import replacing
from stcore.data.streams.tar import read_labels
from stcore.errors import UsageError

INDEX = "stcore-index.json"


class Shard(NamedTuple):
    """One file of a stream, as it was when it was indexed."""

    path: Path
    bytes: int
    modified: int  # ns since 1970
    sha256: str  # of the file, hexadecimal
    labels: Mapping[int, int]  # images of each label that there is
    largest: str  # a member with the largest label

    @property
    def samples(self) -> int:
        """Images in the file."""
        return sum(self.labels.values())


def index(parts: Mapping[str, Sequence[Path]]) -> dict[str, tuple[Shard, ...]]:
    """The shards of each part, all in one folder: from the index, if it knows a file of this name, size and time.

    The others are read once, from end to end, and added to the index, where it can be written.
    DataError, with file and member, for a shard that is not whole or holds something else.
    """
    paths = [path for of_part in parts.values() for path in of_part]
    place = paths[0].parent / INDEX
    known = _known(place)
    shards = {path: known.get(path.name) or _indexed(path) for path in paths}
    if any(path.name not in known for path in paths):
        with contextlib.suppress(UsageError), replacing(place) as file:  # a folder may be read-only
            entries = known | {path.name: shard for path, shard in shards.items()}
            file.write(json.dumps([_entry(shard) for shard in entries.values()], indent=1).encode())
    return {part: tuple(shards[path] for path in of_part) for part, of_part in parts.items()}


def _indexed(path: Path) -> Shard:
    labels: dict[int, int] = {}
    largest = ""
    for member, label in read_labels(path):
        if label > max(labels, default=-1):
            largest = member
        labels[label] = labels.get(label, 0) + 1
    status = path.stat()
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(path, status.st_size, status.st_mtime_ns, sha256, labels, largest)


def _known(place: Path) -> dict[str, Shard]:
    """The entries of files that are as they were; an index that cannot be read is made again."""
    known = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        for entry in json.loads(place.read_bytes()):
            path = place.parent / Path(entry["name"]).name
            labels = {int(label): int(count) for label, count in entry["labels"].items()}
            status = path.stat()
            shard = Shard(
                path, status.st_size, status.st_mtime_ns, str(entry["sha256"]), labels, str(entry["largest"])
            )
            if (shard.bytes, shard.modified) == (entry["bytes"], entry["modified"]):
                known[path.name] = shard
    return known


def _entry(shard: Shard) -> dict[str, Any]:
    entry = shard._asdict()
    return {"name": entry.pop("path").name, **entry}
