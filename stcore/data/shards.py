"""The files of the Hugging Face hub's layout: train-00000-of-00002.parquet and so on, here or in data/."""

import re
from pathlib import Path

from stcore.errors import DataError

PARTS = ("train", "validation", "test")


def find_shards(folder: Path) -> dict[str, list[Path]]:
    """Each part's files in the order of their names; there may be none of validation.

    DataError if the folder is not there, has no train or test files, or if one of several shards is missing.
    """
    if not folder.is_dir():
        raise DataError(f"expected a folder of parquet files, received {str(folder)!r}; check the path")
    shards = {part: _of(folder, part) or _of(folder / "data", part) for part in PARTS}
    for part in ("train", "test"):
        if not shards[part]:
            raise DataError(
                f"{folder}: expected {part}-*.parquet here or in data/, received {contents(folder)}; "
                "name the folder that holds the parquet files themselves"
            )
    return shards


def _of(place: Path, part: str) -> list[Path]:
    shards = sorted(place.glob(f"{part}-*.parquet"))
    # The names say how many there are, so a partial download shows.
    totals = {int(match[1]) for shard in shards if (match := re.search(r"-\d+-of-(\d+)", shard.name))}
    if totals and totals != {len(shards)}:
        raise DataError(
            f"{place}: expected {max(totals)} shards of {part}, received {len(shards)}: "
            f"{_listed([shard.name for shard in shards])}; fetch the whole set again"
        )
    return shards


def contents(folder: Path) -> str:
    """What a folder holds, in few words, for a message."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return _listed(names) if names else "an empty folder"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
