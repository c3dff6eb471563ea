"""Columns and parts of decoded images, shared by the parquet, hub and folder readers."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stcore.data.cache import Decoded
from stcore.data.images import ImageData
from stcore.data.pixels import count_classes
from stcore.data.readers.shards import Known
from stcore.data.rows import Pixels, Rows
from stcore.errors import BrokenImageWarning, DataError

IMAGE_COLUMNS = ("img", "image", "images")
LABEL_COLUMNS = ("label", "labels", "fine_label", "fine_labels")

NAMED = 3
"""Broken images that a warning names."""

Columns = tuple[str, str]


def columns_of(origin: str | Path, present: Sequence[str], columns: Columns | None) -> Columns:
    """The image and the label column: `columns` if given, else the first present with a usual name.

    Raises DataError if one is missing.
    """

    def find(what: str, names: Sequence[str]) -> str:
        for name in names:
            if name in present:
                return name
        raise DataError(
            f"{origin}: expected a column of {what} named {' or '.join(names)}, received the columns "
            f"{', '.join(present)}; name the columns of images and labels (--image-column, --label-column)"
        )

    images, labels = ((columns[0],), (columns[1],)) if columns else (IMAGE_COLUMNS, LABEL_COLUMNS)
    return find("images", images), find("labels", labels)


def parts_of(
    place: str | Path, read: Mapping[str, Decoded], class_names: Sequence[str] | None, known: Known
) -> dict[str, ImageData]:
    """Checks the parts, and gives each the channels and the classes of all together.

    class_names: without them the largest label determines the number of classes.   known: of parts not read.
    Warns by a BrokenImageWarning that counts the images that were left out, and names some.
    Raises DataError for parts that differ in size, and for what `ImageData.from_arrays` refuses.
    """
    _check_sizes(place, read)
    if broken := [reason for part in read.values() for reason in part.broken]:
        total = len(broken) + sum(len(part.labels) for part in read.values())
        more = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        warnings.warn(
            f"{len(broken)} of {total} images were left out: {'; '.join(broken[:NAMED])}{more}",
            BrokenImageWarning,
            stacklevel=2,
        )
    largest = max(int(part.labels.max(initial=0)) for part in read.values())
    count = sum(len(part.labels) for part in read.values())
    num_classes = len(class_names) if class_names else max(count_classes(largest, count, place), known.num_classes)
    channels = max(*(part.images.shape[-1] for part in read.values()), known.channels)
    parts = {}
    for name, part in read.items():
        images = _with_channels(part.images, channels)
        data = ImageData.from_arrays(images, part.labels, num_classes, f"{name} of {place}", class_names)
        # Rows whether they come from the cache or not, so that a held-out part is no copy.
        parts[name] = data if isinstance(data.images, Rows) else replace(data, images=Rows(data.images))
    return parts


def _check_sizes(place: str | Path, read: Mapping[str, Decoded]) -> None:
    sizes = {name: "x".join(map(str, part.images.shape[1:3])) for name, part in read.items() if len(part.labels)}
    first = next(iter(sizes), None)
    for name, size in sizes.items():
        if first is not None and size != sizes[first]:
            raise DataError(
                f"{name} of {place}: expected images of {sizes[first]} pixels as in {first}, received {size}; "
                "resize the images to one size, or give --image-size"
            )


def _with_channels(images: Pixels, channels: int) -> Pixels:
    """A grey part beside a coloured one; other images as they are."""
    if images.shape[-1] == channels:
        return images
    return np.repeat(np.asarray(images), channels // images.shape[-1], axis=-1)
