"""Parquet files of encoded images and labels, as the Hugging Face hub writes them."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stcore.base.declared import check_expansion
from stcore.base.files import file_checksum, from_json
from stcore.data.cache import Decoded, cached
from stcore.data.decoding import decode, import_optional
from stcore.data.images import ImageData, Splits
from stcore.data.readers.decoded import Columns, columns_of, parts_of
from stcore.data.readers.shards import NOTHING, PARTS, Known, find_shards
from stcore.data.split import Validation, check_validation, three_parts
from stcore.errors import DataError

ROWS = 1024
"""Rows that are read at a time."""


def load_parquet(
    folder: str | Path,
    *,
    validation: Validation = None,
    columns: Columns | None = None,
    image_size: int | None = None,
    skip_broken: bool = False,
) -> Splits:
    """Reads train-*.parquet, test-*.parquet and, if any, validation-*.parquet in `folder` or its data/.

    validation: None uses the validation files, or else holds out 2 % of train by the fixed stratified rule; a
        count
        or a fraction holds out that much, and does not fit a set with validation files. "test" holds out nothing
        and selects on the test set, as the paper's released code does.
    columns: (image column, label column); by default the first with a usual name. Images are encoded bytes, plain
        or in the hub's struct {bytes, path}; labels are integers from 0.
    image_size: make images square with this side in pixels: resize the shorter side, crop the centre. By default
        all images must have one size.
    skip_broken: leave out images that cannot be decoded, with a BrokenImageWarning, instead of an error.

    Images become uint8 (N, H, W, C), with C = 1 only if all are grey. The class names come from the hub's
    metadata; without it the number of classes is the largest label plus one.

    Raises DataError, with file and row, if the files do not hold this; UsageError for a setting that does not fit,
    or if pyarrow or pillow is not installed.
    """
    folder = Path(folder)
    check_validation(folder, validation, own=bool(find_shards(folder, "parquet")["validation"]))
    read = read_parquet(folder, columns=columns, image_size=image_size, skip_broken=skip_broken)
    return three_parts(read, validation=validation)


def read_parquet(
    folder: Path,
    parts: Sequence[str] = PARTS,
    known: Known = NOTHING,
    *,
    columns: Columns | None = None,
    image_size: int | None = None,
    skip_broken: bool = False,
) -> dict[str, ImageData]:
    """Reads these parts alone; see `load_parquet`."""
    shards = {part: files for part, files in find_shards(folder, "parquet", parts).items() if files}
    settings = {"reader": "parquet", "columns": columns, "image_size": image_size, "skip_broken": skip_broken}
    read = {
        part: cached(
            str(folder), partial(_digest, files), settings, partial(_read, files, columns, image_size, skip_broken)
        )
        for part, files in shards.items()
    }
    first = next(iter(read.values()))
    return parts_of(folder, read, first.class_names, known)


def _digest(shards: list[Path]) -> str:
    """SHA-256 of the files, one after the other."""
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(bytes.fromhex(file_checksum(shard)))
    return digest.hexdigest()


def _read(shards: list[Path], columns: Columns | None, image_size: int | None, skip_broken: bool) -> Decoded:
    """Decodes one part."""
    labels = [np.empty(0, np.int64)]

    def rows() -> Iterator[tuple[str, bytes | None]]:
        for shard in shards:
            image, label = columns_of(shard, _schema(shard).names, columns)
            row = 0
            for batch in _batches(shard, [image, label]):
                labels.append(_labels(batch.column(label), shard))
                for encoded in _encoded(batch.column(image), shard):
                    yield f"{shard} row {row}", encoded
                    row += 1

    images, sound, broken = decode(rows(), image_size, skip_broken)
    return Decoded(images, np.concatenate(labels)[sound], broken, _class_names(shards[0], columns))


@contextmanager
def _reading(shard: Path) -> Iterator[Any]:
    parquet: Any = import_optional("pyarrow.parquet")
    try:
        yield parquet
    except (OSError, ValueError) as error:  # base classes of pyarrow's errors
        raise DataError(f"{shard}: expected a whole parquet file, received: {error}; fetch it again") from error


def _schema(shard: Path) -> Any:
    with _reading(shard) as parquet:
        return parquet.read_schema(shard)


def _batches(shard: Path, columns: list[str]) -> Iterator[Any]:
    with _reading(shard) as parquet:
        file = parquet.ParquetFile(shard)
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        check_expansion(shard, sum(group.total_byte_size for group in groups), shard.stat().st_size)
        yield from file.iter_batches(ROWS, columns=columns)


def _encoded(column: Any, shard: Path) -> list[bytes | None]:
    arrow: Any = import_optional("pyarrow")
    kind = column.type
    if arrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        column = column.field("bytes")
    if not (arrow.types.is_binary(column.type) or arrow.types.is_large_binary(column.type)):
        raise DataError(
            f"{shard}: expected images as encoded bytes or as a struct of bytes and path, "
            f"received a column of {kind}; name another column"
        )
    encoded: list[bytes | None] = column.to_pylist()
    return encoded


def _labels(column: Any, shard: Path) -> npt.NDArray[np.int64]:
    arrow: Any = import_optional("pyarrow")
    if not arrow.types.is_integer(column.type):
        raise DataError(
            f"{shard}: expected integer labels, received a column of {column.type}; name another column"
        )
    if column.null_count:
        raise DataError(f"{shard}: expected a label in every row, received null; drop the rows without a label")
    return np.asarray(column.to_numpy(zero_copy_only=False), np.int64)


def _class_names(shard: Path, columns: Columns | None) -> tuple[str, ...] | None:
    """The class names of the label column in the hub's metadata, if any."""
    _, label = columns_of(shard, _schema(shard).names, columns)
    try:
        names = from_json(_schema(shard).metadata[b"huggingface"])["info"]["features"][label]["names"]
        return tuple(str(name) for name in names) or None
    except (KeyError, TypeError, ValueError):  # optional: no metadata, or another tool's
        return None
