"""Data sets of the Hugging Face hub, by the `datasets` package, from its cache or over the network."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stcore.data.decoding import decode, needed
from stcore.data.images import Splits
from stcore.data.readers.decoded import Columns, Decoded, columns_of, parts_of
from stcore.data.split import Validation, check_validation
from stcore.errors import DataError


def load_hub(
    name: str,
    *,
    validation: Validation = None,
    columns: Columns | None = None,
    image_size: int | None = None,
) -> Splits:
    """Read a set's splits train, test and, if any, validation into memory.

    name: OWNER/NAME, OWNER/NAME:CONFIG of a set with several configurations, or a folder that the package reads.
        It is downloaded to the package's cache once; with HF_HUB_OFFLINE=1 in the environment the cache alone is
        looked at. No code of the set is run.
    validation, columns, image_size: as `load_parquet` takes them.
    DataError, with split and row, if the set cannot be had or does not hold this; UsageError for a setting that
    does not fit, or where datasets or pillow is not installed.
    """
    datasets: Any = needed("datasets", "datasets")
    repository, _, config = name.partition(":")
    try:
        found: Mapping[str, Any] = datasets.load_dataset(repository, config or None)
    except Exception as error:  # the package raises many kinds
        raise DataError(
            f"hub:{name}: expected a data set of the hub, or of its cache with HF_HUB_OFFLINE=1, received: "
            f"{error}; check the name and the network"
        ) from error
    for part in ("train", "test"):
        if part not in found:
            raise DataError(
                f"hub:{name}: expected splits named train and test, received {', '.join(found)}; "
                "choose a set, or a configuration of it (hub:OWNER/NAME:CONFIG), that has both"
            )
    check_validation(Path(name), validation, own="validation" in found)
    parts = {part: found[part] for part in ("train", "validation", "test") if part in found}
    image, label = columns_of(f"hub:{name}", list(parts["train"].features), columns)
    # As they are stored: what decodes images is ours, whatever the source.
    stored = {part: one.cast_column(image, datasets.Image(decode=False)) for part, one in parts.items()}
    read = {
        part: _read(f"hub:{name} {part}", one.select_columns([image, label]), image, label, image_size)
        for part, one in stored.items()
    }
    class_names = getattr(parts["train"].features[label], "names", None)
    return parts_of(f"hub:{name}", read, class_names, validation)


def _read(where: str, rows: Any, image: str, label: str, image_size: int | None) -> Decoded:
    labels: list[int] = []

    def encoded() -> Iterator[tuple[str, bytes | None]]:
        for number, row in enumerate(rows):
            given = row[label]
            if not isinstance(given, int) or isinstance(given, bool):
                raise DataError(
                    f"{where} row {number}: expected an integer label, received {given!r}; name another column"
                )
            labels.append(given)
            yield f"{where} row {number}", _bytes(row[image] or {})

    images = decode(encoded(), image_size)
    return images, np.array(labels, np.int64)


def _bytes(held: Mapping[str, Any]) -> bytes | None:
    """An image is held itself, or by its path in the cache or the folder."""
    if held.get("bytes") is not None or not held.get("path"):
        return held.get("bytes")
    path = Path(held["path"])
    return path.read_bytes() if path.is_file() else None
