"""Encoded images (PNG, JPEG, …) to one uint8 array."""

import importlib
import io
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from stcore.data.rows import Pixels
from stcore.errors import DataError, UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Of the names of files that hold an image."""

_GREY = ("1", "L", "LA")
_DEEP = ("I", "F")  # more than 8 bits a pixel, with no agreed scale


def decode(rows: Iterable[tuple[str, bytes | None]], image_size: int | None = None) -> Pixels:
    """(where it stands, encoded bytes) of each image -> uint8 (N, H, W, C).

    image_size: make all square, of this side in pixels: the shorter side is resized to it, the middle cut out.
    C is 1 if all are grey, else 3. DataError, with the place, if one is missing, cannot be decoded or differs
    in size.
    """
    images: list[Pixels] = []
    for where, encoded in rows:
        image = decode_one(where, encoded, image_size)
        if images and image.shape[:2] != images[0].shape[:2]:
            raise DataError(
                f"{where}: expected an image of {_size(images[0])} pixels like those before it, "
                f"received {_size(image)}; resize the images to one size, or have it done (--image-size)"
            )
        images.append(image)
    if not images:
        return np.empty((0, 0, 0, 1), np.uint8)
    channels = max(image.shape[-1] for image in images)
    out = np.empty((len(images), *images[0].shape[:2], channels), np.uint8)
    for slot, image in zip(out, images, strict=True):
        slot[:] = image  # grey among colours is repeated over the channels
    return out


def decode_one(where: str, encoded: bytes | None, image_size: int | None = None) -> Pixels:
    """One image as uint8 (H, W, C), C 1 or 3, as `decode` has it."""
    pillow: Any = needed("PIL.Image")
    if not encoded:
        raise DataError(
            f"{where}: expected an encoded image, received no bytes; the file must hold the images "
            "themselves, not only their paths"
        )
    try:
        with pillow.open(io.BytesIO(encoded)) as image:
            mode = image.mode
            pixels = _pixels(image.convert("L" if mode in _GREY else "RGB"), image_size)
    except Exception as error:  # pillow's decoders raise many kinds on foreign bytes
        raise DataError(
            f"{where}: expected a PNG, JPEG or other image pillow reads, received {len(encoded)} bytes that "
            f"are none ({error}); fetch the file again or drop the row"
        ) from error
    if mode.startswith(_DEEP):
        raise DataError(
            f"{where}: expected 8 bits a channel, received pillow mode {mode!r}; "
            "convert the images to 8 bits first"
        )
    return pixels


def decode_npy(where: str, encoded: bytes, image_size: int | None = None) -> Pixels:
    """A numpy file of one image, uint8 (H, W) or (H, W, C), as `decode_one` has it; no pickle in it is run."""
    try:
        pixels = np.lib.format.read_array(io.BytesIO(encoded), allow_pickle=False)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,)):
            raise ValueError(f"{pixels.dtype} of shape {pixels.shape}")
    except Exception as error:  # foreign bytes make numpy raise many kinds
        raise DataError(
            f"{where}: expected a numpy file of uint8, shape (H, W), (H, W, 1) or (H, W, 3), received: {error}; "
            "write it again"
        ) from error
    if image_size is None:
        return pixels.reshape(*pixels.shape[:2], -1)
    pillow: Any = needed("PIL.Image")
    return _pixels(pillow.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels), image_size)


def _pixels(image: Any, image_size: int | None) -> Pixels:
    if image_size is not None:
        ops: Any = needed("PIL.ImageOps")
        image = ops.fit(image, (image_size, image_size))  # bicubic over the whole of what a pixel covers
    pixels: npt.NDArray[np.uint8] = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _size(image: Pixels) -> str:
    return f"{image.shape[0]}x{image.shape[1]}"


def needed(module: str, extra: str = "hub") -> ModuleType:
    """A module of an extra of ours; UsageError that says how to install it if it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"expected the package of {module!r} to read this data set, received: {error}; "
            f"in the repository: pip install '.[{extra}]'"
        ) from error
