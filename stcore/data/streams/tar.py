"""Samples of a tar file in webdataset's layout: KEY.png (or .jpg, .npy, …) beside KEY.cls, its label.

Nothing is unpacked to disk; unwanted members are skipped by their headers.
"""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stcore.data.decoding import SUFFIXES, decode_npy, decode_one
from stcore.data.rows import Pixels
from stcore.errors import DataError

IMAGES = (*SUFFIXES, ".npy")
LABEL = ".cls"
DIGITS = 6  # the most digits of a label


class Sample(NamedTuple):
    """An encoded image and its label."""

    where: str  # file and member, for error messages
    encoded: bytes
    label: int

    def pixels(self, image_size: int | None) -> Pixels:
        """The decoded image, uint8 (H, W, C); image_size and errors as in `decode`."""
        decoder = decode_npy if self.where.lower().endswith(".npy") else decode_one
        return decoder(self.where, self.encoded, image_size)


def read_labels(path: Path) -> Iterator[tuple[str, int]]:
    """Yields (member, label) of each sample. Raises DataError, with file and member, if the file is incomplete."""
    with _opened(path) as tar:
        for _, label in _pairs(tar, path):
            yield label.name, _label(tar, label, path)


def read_samples(path: Path, wanted: npt.NDArray[np.bool_] | None = None) -> Iterator[tuple[int, Sample]]:
    """Yields (number, sample) of all samples, or of the wanted ones.

    wanted: one boolean per sample of the file, or None for all.
    Raises DataError, with file and member, for an invalid sample, an incomplete file, or another number of
    samples.
    """
    number = -1
    with _opened(path) as tar:
        for number, (image, label) in enumerate(_pairs(tar, path)):
            if wanted is None or (number < len(wanted) and wanted[number]):
                yield number, Sample(f"{path} {image.name}", _content(tar, image), _label(tar, label, path))
    if wanted is not None and number + 1 != len(wanted):
        raise DataError(
            f"{path}: expected {len(wanted)} samples, as when it was indexed, received {number + 1}; "
            "restart, and do not change the files during a run"
        )


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            yield tar
            # A tar file ends in zeros; if the last member is not followed by them, the file is truncated or
            # damaged.
            last = next(reversed(tar.getmembers()), None)
            end = last.offset_data + -(-last.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE if last else 0
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise DataError(
                    f"{path}: expected a whole tar file, received one that breaks off"
                    f"{f' after {last.name}' if last else ''}; fetch it again"
                )
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: expected a whole, plain tar file, received: {error}; fetch it again") from error


def _pairs(tar: tarfile.TarFile, path: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarInfo]]:
    """Yields the image and the label member of each sample, which are adjacent in the file."""
    key, image, label = "", None, None
    for member in tar:
        if member.isdir():
            continue
        folder, _, name = member.name.rpartition("/")
        stem, dot, suffix = name.partition(".")
        kind = (dot + suffix).lower()
        if not member.isfile() or kind not in (*IMAGES, LABEL):
            raise DataError(
                f"{path} {member.name}: expected KEY.cls and KEY.png, .jpg, .npy or another image, received this; "
                "write the shards with images and labels alone"
            )
        if (image or label) and f"{folder}/{stem}" != key:
            raise _unpaired(path, image or label)
        key = f"{folder}/{stem}"
        if (label if kind == LABEL else image) is not None:
            raise _unpaired(path, member)
        image, label = (image, member) if kind == LABEL else (member, label)
        if image and label:
            yield image, label
            image, label = None, None
    if image or label:
        raise _unpaired(path, image or label)


def _unpaired(path: Path, member: tarfile.TarInfo | None) -> DataError:
    name = member.name if member else ""
    return DataError(
        f"{path} {name}: expected one image and one label under this key, one after the other, received this "
        "alone; write the shard again"
    )


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    return stream.read() if stream else b""


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> int:
    text = _content(tar, member).strip() if member.size <= 4 * DIGITS else b"more than a number"
    if not text.isdigit() or len(text) > DIGITS:
        raise DataError(
            f"{path} {member.name}: expected a label as a whole number from 0, received "
            f"{text.decode('ascii', 'replace')!r}; write the shard again"
        )
    return int(text)
