"""The parts of a data set whose images were decoded: what parquet files, hub sets and image folders share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stcore.data.images import ImageData
from stcore.data.readers.shards import Known
from stcore.data.rows import Pixels
from stcore.errors import DataError

IMAGE_COLUMNS = ("img", "image", "images")
LABEL_COLUMNS = ("label", "labels", "fine_label", "fine_labels")

Columns = tuple[str, str]
Decoded = tuple[Pixels, npt.NDArray[np.int64]]  # images (N, H, W, C) and labels (N,)


def columns_of(where: str | Path, present: Sequence[str], columns: Columns | None) -> Columns:
    """The image and the label column among those present: the ones that are named, else the first of a usual name.

    DataError where one is not there.
    """

    def find(what: str, names: Sequence[str]) -> str:
        for name in names:
            if name in present:
                return name
        raise DataError(
            f"{where}: expected a column of {what} named {' or '.join(names)}, received the columns "
            f"{', '.join(present)}; say which columns hold images and labels (--image-column, --label-column)"
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
    num_classes = len(class_names) if class_names else max(1 + largest, known.num_classes)
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
