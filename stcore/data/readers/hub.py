"""Data sets of the Hugging Face hub, through the `datasets` package and its cache."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stcore.data.cache import Decoded, cached
from stcore.data.decoding import decode, import_optional
from stcore.data.images import ImageData, Splits
from stcore.data.readers.decoded import Columns, columns_of, parts_of
from stcore.data.readers.shards import NOTHING, PARTS, REQUIRED, Known
from stcore.data.split import Validation, check_validation, three_parts
from stcore.errors import DataError

Samples = Callable[[], Iterator[tuple[str, bytes | None, int]]]


def load_hub(
    name: str,
    *,
    validation: Validation = None,
    columns: Columns | None = None,
    image_size: int | None = None,
    skip_broken: bool = False,
) -> Splits:
    """Reads the splits train, test and, if any, validation of a set into memory as uint8 (N, H, W, C).

    name: OWNER/NAME, OWNER/NAME:CONFIG for one of several configurations, or a folder that the package reads.
        The package downloads it to its cache once; with HF_HUB_OFFLINE=1 in the environment only the cache is
        used. No code of the set is run.
    validation, columns, image_size, skip_broken: as in `load_parquet`.
    Raises DataError, with split and row, if the set cannot be loaded or its content does not fit; UsageError for a
    setting that does not fit, or if datasets or pillow is not installed.
    """
    found = _opened(name)
    check_validation(Path(name), validation, own="validation" in found)
    read = _read_parts(name, found, PARTS, NOTHING, columns, image_size, skip_broken)
    return three_parts(read, validation=validation)


def read_hub(
    name: str | Path,
    parts: Sequence[str] = PARTS,
    known: Known = NOTHING,
    *,
    columns: Columns | None = None,
    image_size: int | None = None,
    skip_broken: bool = False,
) -> dict[str, ImageData]:
    """Reads these parts alone; see `load_hub`."""
    return _read_parts(str(name), _opened(str(name)), parts, known, columns, image_size, skip_broken)


def _opened(name: str) -> Mapping[str, Any]:
    datasets: Any = import_optional("datasets", "datasets")
    repository, _, config = name.partition(":")
    try:
        found: Mapping[str, Any] = datasets.load_dataset(repository, config or None)
    except Exception as error:  # the package raises many kinds of errors
        raise DataError(
            f"hub:{name}: expected a data set of the hub, or of its cache with HF_HUB_OFFLINE=1, received: "
            f"{error}; check the name and the network"
        ) from error
    return found


def _read_parts(
    name: str,
    found: Mapping[str, Any],
    parts: Sequence[str],
    known: Known,
    columns: Columns | None,
    image_size: int | None,
    skip_broken: bool,
) -> dict[str, ImageData]:
    datasets: Any = import_optional("datasets", "datasets")
    for part in REQUIRED:
        if part in parts and part not in found:
            raise DataError(
                f"hub:{name}: expected splits named train and test, received {', '.join(found)}; "
                "choose a set, or a configuration of it (hub:OWNER/NAME:CONFIG), that has both"
            )
    rows = {part: found[part] for part in parts if part in found}
    features = next(iter(rows.values())).features
    image, label = columns_of(f"hub:{name}", list(features), columns)
    # Encoded, as stored: all readers decode with the same code.
    stored = {part: split.cast_column(image, datasets.Image(decode=False)) for part, split in rows.items()}
    settings = {"reader": "hub", "image_size": image_size, "skip_broken": skip_broken}
    read = {}
    for part, split in stored.items():
        origin, rows = f"hub:{name} {part}", split.select_columns([image, label])
        samples = partial(_samples, origin, rows, image, label)
        make = partial(_read, samples, image_size, skip_broken)
        read[part] = cached(origin, partial(_digest, samples), settings, make)
    return parts_of(f"hub:{name}", read, getattr(features[label], "names", None), known)


def _samples(origin: str, rows: Any, image: str, label: str) -> Iterator[tuple[str, bytes | None, int]]:
    """The origin, the encoded image and the label of each row."""
    for number, row in enumerate(rows):
        value = row[label]
        if not isinstance(value, int) or isinstance(value, bool):
            raise DataError(
                f"{origin} row {number}: expected an integer label, received {value!r}; name another column"
            )
        yield f"{origin} row {number}", _bytes(row[image] or {}), value


def _digest(samples: Samples) -> str:
    """SHA-256 of all encoded images and labels: the package's own files may hold paths alone."""
    digest = hashlib.sha256()
    for _, encoded, label in samples():
        digest.update(hashlib.sha256(encoded or b"").digest() + repr((encoded is None, label)).encode())
    return digest.hexdigest()


def _read(samples: Samples, image_size: int | None, skip_broken: bool) -> Decoded:
    """Decodes one part."""
    labels: list[int] = []

    def rows() -> Iterator[tuple[str, bytes | None]]:
        for origin, encoded, label in samples():
            labels.append(label)
            yield origin, encoded

    images, sound, broken = decode(rows(), image_size, skip_broken)
    return Decoded(images, np.array(labels, np.int64)[sound], broken)


def _bytes(entry: Mapping[str, Any]) -> bytes | None:
    """The encoded image: its bytes, or the file at its path in the cache or the folder."""
    if entry.get("bytes") is not None or not entry.get("path"):
        return entry.get("bytes")
    path = Path(entry["path"])
    return path.read_bytes() if path.is_file() else None
