"""Streams: data sets in tar shards, whose training part is read from disk in each epoch."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stcore.data.images import ImageData, Splits
from stcore.data.pixels import count_classes
from stcore.data.readers.shards import NOTHING, PARTS, Known, find_shards
from stcore.data.split import Validation
from stcore.data.streams.dataset import StreamData
from stcore.data.streams.index import Shard, index
from stcore.data.streams.tar import read_samples
from stcore.errors import DataError, UsageError

NAMES = "classnames.txt"


def load_stream(folder: str | Path, *, validation: Validation = None, image_size: int | None = None) -> Splits:
    """Opens train-*.tar, and reads test-*.tar and, if any, validation-*.tar into memory, in `folder` or its data/.

    Shards are plain tar files in webdataset's layout: KEY.png (or .jpg, .npy, …) next to KEY.cls, a label from 0.
    The first time, each shard is read completely and an index is written beside it. classnames.txt, with one name
    per line, is optional: without it the number of classes is the largest label plus one.

    validation: None uses the validation shards; without any, `Splits.validation` is None, since a stream cannot be
        split. "test" selects on the test set.
    image_size: make images square with this side in pixels; by default all images must have one size.
    Raises DataError, with file and member, if the files do not hold this; UsageError for a setting that does not
    fit.
    """
    folder = Path(folder)
    if validation not in (None, "test"):
        raise UsageError(
            f"{folder}: expected no size to hold out of a stream, received {validation!r}; give it "
            "validation-*.tar, or leave the option out"
        )
    shards, names = _shards(folder, PARTS), _class_names(folder)
    num_classes = _count(shards, names, NOTHING)
    train = _stream(shards["train"], num_classes, f"train of {folder}", names, image_size)
    held = {part: _in_memory(part, each, train, folder) for part, each in shards.items() if part != "train"}
    return Splits(train, held["test"] if validation == "test" else held.get("validation"), held["test"])


def read_stream(
    folder: Path, parts: Sequence[str], known: Known = NOTHING, *, image_size: int | None = None
) -> dict[str, ImageData]:
    """Reads these parts, validation or test, into memory without the training shards; see `load_stream`."""
    shards, names = _shards(folder, parts), _class_names(folder)
    num_classes = _count(shards, names, known)
    read = {}
    for part, each in shards.items():
        like = _stream(each, num_classes, f"{part} of {folder}", names, image_size)
        height, width, channels = like.image_shape
        like = dataclasses.replace(like, image_shape=(height, width, max(channels, known.channels)))
        read[part] = _in_memory(part, each, like, folder)
    return read


def _shards(folder: Path, parts: Sequence[str]) -> dict[str, tuple[Shard, ...]]:
    return index({part: paths for part, paths in find_shards(folder, "tar", parts).items() if paths})


def _count(shards: Mapping[str, Sequence[Shard]], names: tuple[str, ...] | None, known: Known) -> int:
    all_shards = [shard for part_shards in shards.values() for shard in part_shards]
    last = max(all_shards, key=lambda shard: max(shard.labels, default=-1))
    largest = max(last.labels, default=-1)
    if names is not None and largest >= len(names):
        raise DataError(
            f"{last.path} {last.largest}: expected a label in [0, {len(names)}), as {NAMES} has {len(names)} "
            f"names, received {largest}; correct one of them"
        )
    if names is not None:
        return len(names)
    images = sum(shard.samples for shard in all_shards)
    return max(count_classes(largest, images, f"{last.path} {last.largest}"), known.num_classes)


def _stream(
    shards: tuple[Shard, ...],
    num_classes: int,
    name: str,
    names: tuple[str, ...] | None,
    image_size: int | None,
) -> StreamData:
    for shard in shards:
        for _, first in read_samples(shard.path):
            height, width, channels = first.pixels(image_size).shape
            return StreamData(shards, (height, width, channels), num_classes, name, names, image_size)
    raise DataError(f"{name}: expected at least one image, received empty shards; check where they come from")


def _in_memory(part: str, shards: Sequence[Shard], like: StreamData, folder: Path) -> ImageData:
    samples = [sample for shard in shards for _, sample in read_samples(shard.path)]
    images = np.empty((len(samples), *like.image_shape), np.uint8)
    for slot, sample in zip(images, samples, strict=True):
        slot[:] = like.pixels(sample)
    labels = np.array([sample.label for sample in samples], np.int64)
    return ImageData.from_arrays(images, labels, like.num_classes, f"{part} of {folder}", like.class_names)


def _class_names(folder: Path) -> tuple[str, ...] | None:
    path = folder / NAMES
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else None
