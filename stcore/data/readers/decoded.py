"""Columns and parts of decoded images, shared by the parquet, hub and folder readers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stcore.data.images import ImageData
from stcore.data.pixels import count_classes
from stcore.data.readers.shards import Known
from stcore.data.rows import Pixels
from stcore.errors import DataError

IMAGE_COLUMNS = ("img", "image", "images")
LABEL_COLUMNS = ("label", "labels", "fine_label", "fine_labels")

Columns = tuple[str, str]
Decoded = tuple[Pixels, npt.NDArray[np.int64]]  # images (N, H, W, C) and labels (N,)


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
    Raises DataError for what `ImageData.from_arrays` refuses.
    """
    largest = max(int(labels.max(initial=0)) for _, labels in read.values())
    count = sum(len(labels) for _, labels in read.values())
    num_classes = len(class_names) if class_names else max(count_classes(largest, count, place), known.num_classes)
    channels = max(*(images.shape[-1] for images, _ in read.values()), known.channels)
    return {
        part: ImageData.from_arrays(
            np.repeat(images, channels // images.shape[-1], axis=-1),  # a grey part beside a coloured one
            labels,
            num_classes,
            f"{part} of {place}",
            class_names,
        )
        for part, (images, labels) in read.items()
    }
