"""Files of a sharded set, such as train-00000-of-00002.parquet or train-000000.tar."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stcore.errors import DataError

PARTS = ("train", "validation", "test")
REQUIRED = ("train", "test")


class Known(NamedTuple):
    """Facts about a whole data set that one part alone may lack, such as a checkpoint records.

    num_classes: how many classes there are at least, if the set does not name them.   channels: likewise.
    """

    num_classes: int = 0
    channels: int = 0


NOTHING = Known()


def find_shards(folder: Path, suffix: str, parts: Sequence[str] = PARTS) -> dict[str, list[Path]]:
    """Finds these parts' files in `folder` or its data/, in the order of their names; validation may be empty.

    Raises DataError if the folder does not exist, has no train or test files, or lacks one of several shards.
    """
    if not folder.is_dir():
        raise DataError(f"expected a folder of {suffix} files, received {str(folder)!r}; check the path")
    folders = (folder, folder / "data")
    shards = {part: next(filter(None, (_find_part(f, part, suffix) for f in folders)), []) for part in parts}
    for part, files in shards.items():
        if part in REQUIRED and not files:
            raise DataError(
                f"{folder}: expected {part}-*.{suffix} here or in data/, received {contents(folder)}; "
                f"name the folder that holds the {suffix} files themselves"
            )
    return shards


def _find_part(folder: Path, part: str, suffix: str) -> list[Path]:
    shards = sorted(folder.glob(f"{part}-*.{suffix}"))
    # The names contain the number of shards, which reveals a partial download.
    totals = {int(match[1]) for shard in shards if (match := re.search(r"-\d+-of-(\d+)", shard.name))}
    if totals and totals != {len(shards)}:
        raise DataError(
            f"{folder}: expected {max(totals)} shards of {part}, received {len(shards)}: "
            f"{listed([shard.name for shard in shards])}; fetch the whole set again"
        )
    # Without a total, a gap in the numbers from 0 or 1 reveals a missing shard, except at the end.
    numbers = {int(match[1]) for shard in shards if (match := re.search(r"-(\d+)(-of-\d+)?\.", shard.name))}
    gaps = sorted(set(range(min(*numbers, 1), max(numbers))) - numbers) if numbers else []
    if gaps:
        raise DataError(
            f"{folder}: expected the shards of {part} to be numbered without a gap, received none numbered "
            f"{listed([str(gap) for gap in gaps])}; fetch the whole set again"
        )
    return shards


def contents(folder: Path) -> str:
    """A folder's content for an error message."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return listed(names) if names else "an empty folder"


def listed(names: Sequence[str]) -> str:
    """The first eight names and the number of others, for an error message."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
