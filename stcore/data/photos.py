"""Photos as a network's images: files, folders and pillow's images of any size, in its size and its colours."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from stcore.data.decoding import MODES, SUFFIXES, decode_one
from stcore.data.rows import Pixels
from stcore.errors import DataError, UsageError

JUNK = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx")
"""What systems put into folders of pictures, in lower case."""


class Photos(NamedTuple):
    """Photos that were read.

    names: of each, its path.   images: uint8 (N, H, W, C).   broken: what is wrong with those left out.
    """

    names: tuple[str, ...]
    images: Pixels
    broken: tuple[str, ...]


def are_photos(images: Any) -> bool:
    """Whether these are photos (a path, an image of pillow, or a list of them), and not an array."""
    return _is_photo(images) or (isinstance(images, list | tuple) and bool(images) and _is_photo(images[0]))


def read_photos(photos: Any, shape: tuple[int, int, int], skip_broken: bool = False) -> Photos:
    """Reads photos as images of one shape (H, W, C), by the rule `decoding.RESIZE`.

    photos: a file, a folder (all pictures below it, in alphabetical order), an image of pillow, or a list of them.
    Files are turned upright by their EXIF orientation, transparency is dropped, and colours become grey or grey
    becomes colours as the shape asks.
    skip_broken: leave out files that are no pictures.
    Raises DataError, with the file, for one that does not exist or is no picture, and if there are none;
    UsageError if the shape has other channels than 1 or 3, or if pillow is not installed.
    """
    height, width, channels = shape
    if channels not in MODES:
        raise UsageError(
            f"images: expected a network of images with 1 or 3 channels for photos; this one takes {channels}. "
            "Give its images as arrays"
        )
    names: list[str] = []
    images: list[Pixels] = []
    broken: list[str] = []
    for name, encoded in _encoded([photos] if _is_photo(photos) else photos):
        try:
            image = decode_one(name, encoded, (height, width), channels)
        except DataError as error:
            if not skip_broken:
                raise
            broken.append(str(error))
            continue
        names.append(name)
        images.append(image)
    if not images:
        raise DataError(
            f"images: expected at least one photo ({', '.join(SUFFIXES)}); received none that is whole"
        )
    return Photos(tuple(names), np.stack(images), tuple(broken))


def _is_photo(one: Any) -> TypeGuard[str | Path]:
    return isinstance(one, str | Path) or _is_pillow(one)


def _is_pillow(one: Any) -> bool:
    pillow: Any = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(one, pillow.Image)


def _encoded(photos: Sequence[Any]) -> Iterator[tuple[str, bytes]]:
    """The name and the bytes of each photo, in the order given."""
    for place, one in enumerate(photos):
        if _is_pillow(one):
            yield f"image {place}", _encode(one)
            continue
        path = Path(one)
        if not path.exists():
            raise DataError(f"images: expected files or folders of photos; {path} does not exist")
        for file in _below(path) if path.is_dir() else (path,):
            yield str(file), file.read_bytes()


def _below(folder: Path) -> list[Path]:
    """The pictures below a folder, without hidden files and folders and those of systems."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") or part.lower() in JUNK for part in path.relative_to(folder).parts)
    )


def _encode(image: Any) -> bytes:
    """An image of pillow as a file, with its orientation."""
    file = io.BytesIO()
    image.save(file, "TIFF", exif=image.getexif())
    return file.getvalue()
